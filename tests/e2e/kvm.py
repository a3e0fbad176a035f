#!/usr/bin/env python3
"""KVM from outside: how far a kernel comes, and what is said when it cannot go on; what the command line refuses."""
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.dirname(__file__))
from session import PROMPT, SKIP, VMM, Session, check, guest, linux, main  # noqa: E402
from tiny_guest import LETTER, MIB, resident, tiny_guest  # noqa: E402


def need_kvm():
    """Whether the CPU helps KVM; without, the host's kernel emulates the guest, and not all of it."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        print("skipped: /dev/kvm cannot be opened")
        sys.exit(SKIP)
    with open("/proc/cpuinfo") as info:
        flags = info.read()
    return " vmx" in flags or " svm" in flags


def linux_runs_as_far_as_this_kvm_does():
    if need_kvm():
        with Session(*linux(extra=["-accel", "kvm"])) as vm:
            vm.expect(r"vmm-guest: ready, Linux \S+ x86_64")
            vm.expect(PROMPT)
            vm.send("poweroff -f\n")
            check(vm.wait() == 0, "status")
        return
    # The kernel itself, for a compressed one takes minutes to unpack at two million instructions a second.
    with Session("-accel", "kvm", "-m", "64", "-kernel", guest("amd64/vmlinux"), "-append", "earlyprintk=ttyS0 console=ttyS0", "-display", "none",
                 "-serial", "stdio", "-monitor", "none", "-no-reboot") as vm:
        vm.expect(r"Linux version \d+\.\d+")
        vm.expect(r"bootconsole \[earlyser0\] enabled")
        vm.expect(r"Hypervisor detected: KVM")
        vm.expect(r"kvm-clock: Using msrs")
        vm.expect(r"tsc: Detected \S+ MHz processor")
        vm.expect(r"x86/PAT: Configuration \[0-7\]: WB  WC  UC- UC  WB  WP  UC- WT")
        vm.expect(r"IOAPIC\[0\]: apic_id 0, version \d+, address 0xfec00000, GSI 0-23")
        vm.expect(r"Booting paravirtualized kernel on KVM")
        vm.expect(r"KVM cannot emulate this instruction")
        vm.expect(r"CPU 0 at 0010:ffffffff[0-9a-f]{8}, code:( [0-9a-f]{2}){15}")
        vm.expect(r"RAX=[0-9a-f]{16}")
        vm.expect(r"CR0=80050033")
        check(vm.wait() == 1, "status of an internal error with no monitor to look at it")


def malformed_properties_are_one_error_and_no_fallback():
    for options, word in [(["-accel", "kvm,kernel-irqchip=maybe", "-accel", "tcg"], "kernel-irqchip"),
                          (["-machine", "pc,accel=kvm:tcg,kernel-irqchip=7"], "kernel-irqchip"),
                          (["-accel", "kvm,dirty-ring-size=1000", "-accel", "tcg"], "dirty-ring-size"),
                          (["-accel", "kvm,dirty-ring-size=many", "-accel", "tcg"], "dirty-ring-size"),
                          (["-accel", "kvm,speed=9", "-accel", "tcg"], "speed"),
                          (["-accel", "kvm,lockstep=on", "-smp", "2"], "on one CPU"),
                          (["-accel", "kvm,lockstep=on,kernel-irqchip=split"], "kernel-irqchip=off"),
                          (["-machine", "accel=kvm:warp"], "warp")]:
        done = subprocess.run([VMM, *options, "-display", "none", "-serial", "none", "-monitor", "none"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        check(done.returncode == 1, f"{options}: status {done.returncode}")
        check(word in done.stderr and "falling back" not in done.stderr, f"{options}: {done.stderr!r}")
        check(len(done.stderr.strip().splitlines()) == 1, f"{options}: more than one message: {done.stderr!r}")


def a_program_named_after_a_foreign_architecture_says_so():
    """QEMU's users call qemu-system-aarch64 -enable-kvm; both what KVM cannot do and what this build has not are named."""
    with tempfile.TemporaryDirectory() as folder:
        def run(name, *options):
            link = os.path.join(folder, name)
            os.path.lexists(link) or os.symlink(VMM, link)
            done = subprocess.run([link, *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
            check(done.returncode == 1 or "-version" in options, f"{name} {options}: status {done.returncode}\n{done.stderr}")
            check(done.returncode == 0 or (done.stderr.startswith(f"{name}: ") and done.stderr.count("\n") == 1), f"{name} {options}: {done.stderr!r}")
            return done.stdout + done.stderr

        for name, architecture in [("qemu-system-aarch64", "aarch64"), ("vmm-system-arm", "arm"), ("vmm-system-riscv64", "riscv64")]:
            check(f"{architecture} guests are not built yet" in run(name, "-M", "virt", "-cpu", "cortex-a57", "-nographic"), name)
            for options in [["-enable-kvm"], ["-accel", "kvm"], ["-machine", "virt,accel=kvm"]]:
                said = run(name, *options, "-kernel", "Image")
                for part in ["invalid accelerator kvm", "x86 guests only", "-accel tcg", f"{architecture} guests are not built yet"]:
                    check(part in said, f"{name} {options}: {said!r} lacks {part!r}")
            check("kvm" not in run(name, "-machine", "virt,accel=kvm:tcg"), "a list with tcg is no question of KVM")
            check("version" in run(name, "-version"), "-version")
        for name in ["vmm-system-x86_64", "qemu-system-i386"]:
            check("nothing to boot" in run(name, "-display", "none", "-serial", "none", "-monitor", "none"), f"{name}: not an x86 program")


def an_idle_guest_of_4_gib_takes_little_more_than_it_touched():
    need_kvm()
    limit = 40 * MIB
    with tempfile.TemporaryDirectory() as folder:
        for touched in 0, 64:
            kernel = tiny_guest(os.path.join(folder, "guest"), touched)
            vmm = subprocess.Popen([VMM, "-accel", "kvm", "-m", "4G", "-kernel", kernel, "-display", "none", "-serial", "none", "-monitor", "none",
                                    "-debugcon", "stdio"], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, bufsize=0)
            check(vmm.stdout.read(1) == LETTER, "the guest did not start")
            ram, rest = resident(vmm.pid)
            vmm.terminate()
            check(vmm.wait(30) == 0, f"status {vmm.returncode} on SIGTERM")
            print(f"the guest touched {touched} MiB: {ram / MIB:.1f} MiB of its RAM are resident, {rest / MIB:.1f} MiB beside it")
            check(ram >= touched * MIB, "the guest's RAM was not found")
            check(ram + rest - touched * MIB < limit, f"{(ram + rest) / MIB - touched:.1f} MiB beyond what the guest touched")


# Questions whose refusal is an answer.
TOLERATED = {0xae03: "KVM_CHECK_EXTENSION"}
# Made only in a run in which the PIT ticks, which takes time.
NOW_AND_THEN = {0x4008ae61: "KVM_IRQ_LINE"}


def each_failing_call_is_one_message_and_status_1():
    """The whole program, with a KVM that fails one call of each kind, the first and a later one, that these runs make."""
    need_kvm()
    programs = os.environ["GUEST_PROGRAMS"]
    kinds, seen = set(), set()
    for accel, program in [("kvm", "interrupts"), ("kvm,kernel-irqchip=split", "interrupts"), ("kvm,kernel-irqchip=off", "shortcuts"),
                           ("kvm,dirty-ring-size=1024", "shortcuts")]:
        command = [VMM, "-accel", accel, "-kernel", f"{programs}/64/{program}.elf", "-append", "only=a_doorbell_is_rung_as_often_as_it_was_written",
                   "-display", "none", "-serial", "none", "-monitor", "none", "-debugcon", "null", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4",
                   "-device", "pc-testdev", "-no-reboot"]

        def run(**env):
            return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
                                  env={**os.environ, "LD_PRELOAD": os.environ["FAILING_IOCTL"], **env})

        with tempfile.NamedTemporaryFile("r") as log:
            done = run(KVM_REQUESTS=log.name)
            requests = {int(line, 16) for line in log.read().split()}
        check("KVM failed" not in done.stderr and len(requests) > 30, f"{accel}: {done.stderr!r}, {len(requests)} requests")
        for request in sorted(requests):
            for at in (1, 2):
                if at == 1 and (accel.partition(",")[0], request) in seen and accel != "kvm":
                    continue
                failed = run(FAIL_REQUEST=hex(request), FAIL_AT=str(at))
                told = failed.stderr.count("KVM failed")
                if request in TOLERATED or ((at > 1 or request in NOW_AND_THEN) and not told and failed.stderr == done.stderr):  # not made that often
                    check(failed.returncode >= 0, f"{accel}, {request:#x}: signal {-failed.returncode}")
                    continue
                check(failed.returncode == 1, f"{accel}, {request:#x} number {at}: status {failed.returncode}\n{failed.stderr}")
                check(told == 1, f"{accel}, {request:#x} number {at}: not one message: {failed.stderr!r}")
                kinds.add(request)
            seen.add((accel.partition(",")[0], request))
    print(f"{len(kinds)} kinds of calls, each told once")
    check(len(kinds) >= 38, f"only {len(kinds)} kinds of calls")


if __name__ == "__main__":
    main([linux_runs_as_far_as_this_kvm_does, a_program_named_after_a_foreign_architecture_says_so,
          an_idle_guest_of_4_gib_takes_little_more_than_it_touched, malformed_properties_are_one_error_and_no_fallback, each_failing_call_is_one_message_and_status_1])
