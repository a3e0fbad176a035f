#!/usr/bin/env python3
"""Debian's kernels boot to a shell on the serial line, and do what a shell makes a kernel do."""
import hashlib
import os
import re
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from session import LIMIT, PROMPT, Failure, Session, check, guest, linux, main  # noqa: E402


# Whether one line of the answer is `line`: the kernel may put in a word of its own at any time.
def says(vm, command, line):
    return line in [l.strip() for l in vm.command(command).splitlines()]


def boots_to_a_shell_and_powers_off():
    with Session(*linux()) as vm:
        vm.expect(r"vmm-guest: ready, Linux \S+ x86_64")
        vm.expect(PROMPT)
        check(says(vm, "echo $((6*7))", "42"), "the shell does not compute")
        vm.send("poweroff -f\n")
        check(vm.wait() == 0, "poweroff does not end vmm with status 0")


def runs_a_script_of_shell_work():
    """fork, pipes, signals, mmap, floating point, checksums, the clock."""
    with Session(*linux()) as vm:
        vm.expect(r"vmm-guest: ready")
        vm.expect(PROMPT)
        sums = hashlib.sha256(b"".join(b"%d\n" % i for i in range(1, 20001))).hexdigest()
        check(sums in vm.command("seq 1 20000 | sha256sum"), "sha256sum differs")
        md5 = hashlib.md5(b"".join(b"%d\n" % i for i in range(1, 20001))).hexdigest()
        check(md5 in vm.command("seq 1 20000 | md5sum"), "md5sum differs")
        out = vm.command("awk 'BEGIN {t=1; for(i=1;i<20;i++) {e+=t; t/=i}; printf \"%.12f\\n\", e}'")
        check("2.718281828459" in out, f"awk's floating point: {out!r}")
        check(says(vm, "i=0; while [ $i -lt 200 ]; do (exit 3) || i=$((i+1)); done; echo $i", "200"), "fork loop")
        # The child of an interactive shell ignores SIGTERM until it has become the program: give it that time.
        check("status 143" in vm.command("sleep 100 & sleep 2; kill -TERM $!; wait $!; echo status $?"), "signals")
        check(says(vm, "seq 1 5000 | sort -rn | head -1", "5000"), "sort")
        check(says(vm, "seq 1 100000 | gzip -c | gzip -dc | wc -l", "100000"), "gzip")
        year = int(vm.command("date +%Y").strip())
        check(year >= 2024, f"the clock says {year}")
        check(vm.command("cat /sys/class/rtc/rtc0/name").strip().startswith("rtc_cmos"), "no RTC")
        vm.send("poweroff -f\n")
        check(vm.wait() == 0, "status")


def reboots_and_no_reboot_ends():
    with Session(*linux()) as vm:
        vm.expect(r"vmm-guest: ready")
        vm.expect(PROMPT)
        vm.send("reboot -f\n")
        vm.expect(r"vmm-guest: ready")
        vm.expect(PROMPT)
        vm.send("\x01x")
        check(vm.wait() == 0, "Ctrl-a x does not end vmm with status 0")
        check("QEMU: Terminated" in vm.text, "no farewell")
    with Session(*linux(extra=["-no-reboot"])) as vm:
        vm.expect(r"vmm-guest: ready")
        vm.expect(PROMPT)
        vm.send("reboot -f\n")
        check(vm.wait() == 0, "-no-reboot")


def panic_reboots_or_ends():
    with Session(*linux(append='console=ttyS0 panic=-1 vmm.run="echo c > /proc/sysrq-trigger"', extra=["-no-reboot"])) as vm:
        vm.expect(r"Kernel panic - not syncing")
        check(vm.wait() == 0, "a panic with panic=-1 and -no-reboot does not end vmm")


def boots_an_elf_vmlinux_with_a_directory_as_initrd():
    with Session("-m", "256", "-kernel", guest("amd64/vmlinux"), "-initrd", guest("amd64/root"), "-append", "console=ttyS0 quiet",
                 "-nographic") as vm:
        vm.expect(r"vmm-guest: ready")
        vm.send("poweroff -f\n")
        check(vm.wait() == 0, "status")


def boots_a_32_bit_kernel():
    with Session(*linux(arch="i386", append='console=ttyS0 vmm.run="seq 1 1000 | md5sum"')) as vm:
        vm.expect(r"vmm-guest: ready, Linux \S+ i686")
        vm.expect(hashlib.md5(b"".join(b"%d\n" % i for i in range(1, 1001))).hexdigest())
        vm.expect(r"vmm-guest: exit 0")
        check(vm.wait() == 0, "status")


def boots_with_two_cpus():
    with Session(*linux(append='console=ttyS0 vmm.run="nproc; echo cpus-done"', extra=["-smp", "2"])) as vm:
        vm.expect(r"vmm-guest: ready")
        vm.expect(r"\n2\s+cpus-done")
        check(vm.wait() == 0, "status")


def sees_the_topology_of_smp():
    """sockets, cores and threads as -smp says, by the kernel's own account."""
    look = ("cd /sys/devices/system/cpu; for c in cpu[0-9]*; do echo TOPO $c p$(cat $c/topology/physical_package_id) "
            "c$(cat $c/topology/core_id) t$(cat $c/topology/thread_siblings_list) s$(cat $c/topology/core_siblings_list); done; "
            "grep -m1 siblings /proc/cpuinfo; grep -m1 'cpu cores' /proc/cpuinfo; echo looked")
    for model in "max", "x86-64-v3":
        with Session(*linux(append=f'console=ttyS0 quiet vmm.run="{look}"',
                            extra=["-cpu", model, "-smp", "4,sockets=1,cores=2,threads=2"])) as vm:
            vm.expect(r"vmm-guest: ready")
            vm.expect(r"\nlooked")
            for cpu, core, threads in (0, 0, "0-1"), (1, 0, "0-1"), (2, 1, "2-3"), (3, 1, "2-3"):
                check(f"TOPO cpu{cpu} p0 c{core} t{threads} s0-3" in vm.text, f"{model}: cpu{cpu} is elsewhere: {vm.text[-600:]}")
            check("siblings\t: 4" in vm.text and "cpu cores\t: 2" in vm.text, f"{model}: /proc/cpuinfo: {vm.text[-600:]}")
    with Session(*linux(append='console=ttyS0 quiet vmm.run="grep -c . /sys/devices/system/cpu/cpu*/topology/core_id; '
                               'grep physical.id /proc/cpuinfo; grep ^apicid /proc/cpuinfo; echo looked"',
                        extra=["-smp", "4,sockets=2,cores=3,maxcpus=6"])) as vm:
        vm.expect(r"\nlooked")
        check(vm.text.count("physical id\t: 0") == 3 and vm.text.count("physical id\t: 1") == 1, f"sockets: {vm.text[-600:]}")
        check("apicid\t\t: 4" in vm.text, f"APIC ids: {vm.text[-600:]}")


def the_clock_starts_and_moves_as_rtc_says():
    with Session(*linux(append='console=ttyS0 quiet vmm.run="cat /sys/class/rtc/rtc0/date; echo looked"',
                        extra=["-rtc", "base=2006-06-17T16:01:21,clock=vm"])) as vm:
        vm.expect(r"2006-06-17")
        check(vm.wait() == 0, "status")
    with Session(*linux(extra=["-rtc", "base=2006-06-17,clock=vm,driftfix=slew"])) as vm:
        vm.expect(PROMPT)
        times = []
        look = "echo $(cat /sys/class/rtc/rtc0/since_epoch) $(cut -d' ' -f1 /proc/uptime)"
        times.append([float(t) for t in vm.command(look).split()])
        check(times[0][0] >= 1150502400, f"the RTC starts at {times[0][0]}")
        vm.send("\x01c")
        vm.expect(r"\(qemu\) ")
        vm.send("stop\n")
        time.sleep(5)  # time that a clock of the machine's must not see
        vm.send("cont\n")
        vm.send("\x01c\n")
        vm.expect(PROMPT)
        times.append([float(t) for t in vm.command(look).split()])
        rtc, uptime = times[1][0] - times[0][0], times[1][1] - times[0][1]
        check(abs(rtc - uptime) < 2.5, f"the RTC moved {rtc} s in {uptime} s of the machine's time")
        vm.send("poweroff -f\n")
        check(vm.wait() == 0, "status")


def traces_are_limited_to_the_addresses_of_dfilter():
    with tempfile.TemporaryDirectory() as directory:
        log = os.path.join(directory, "log")
        with Session(*linux(append="console=ttyS0 panic=-1 vmm.run=true",
                            extra=["-d", "in_asm,exec", "-D", log, "-dfilter", "0x1000000..0x10fffff"])) as vm:
            check(vm.wait() == 0, "status")
        with open(log, encoding="ascii") as file:
            blocks = re.findall(r"^(?:IN: \[0x|Trace 0: \[)([0-9a-f]+)", file.read(), re.M)
        check(blocks, "nothing was traced")
        check(all(0x1000000 <= int(at, 16) <= 0x10fffff for at in blocks), "something outside of the range was traced")


def the_two_engines_agree_in_lockstep():
    """The JIT drives, the interpreter repeats every block: the kernel boots, a shell works, nothing differs."""
    with Session(*linux(append='console=ttyS0 quiet vmm.run="seq 1 300 | sort -rn | head -1; seq 1 1000 | gzip -c | gzip -dc | md5sum"',
                        memory="256", extra=["-accel", "tcg,lockstep=on", "-no-reboot"])) as vm:
        vm.expect(r"vmm-guest: exit 0", limit=2.5 * LIMIT)  # about a minute of CPU time
        check(vm.wait() == 0, "status")
        check("\n300" in vm.text, "the guest's work went wrong")
    with Session(*linux(extra=["-accel", "tcg,lockstep=on", "-smp", "2"])) as vm:
        vm.expect(r"lockstep=on compares two engines on one CPU")
        check(vm.wait() == 1, "status")


def power_button_and_monitor():
    with Session(*linux()) as vm:
        vm.expect(r"vmm-guest: ready")
        vm.expect(PROMPT)
        vm.send("\x01c")
        vm.expect(r"\(qemu\) ")
        vm.send("info status\n")
        vm.expect(r"VM status: running")
        vm.send("stop\ninfo status\n")
        vm.expect(r"VM status: paused")
        vm.send("info registers\n")
        vm.expect(r"RIP=[0-9a-f]{16}")
        vm.send("cont\n")
        vm.expect(r"\(qemu\) ")
        vm.send("info kvm\n")
        vm.expect(r"kvm support: disabled")
        vm.send("quit\n")
        check(vm.wait() == 0, "quit")


def boots_under_torture():
    """Tiny code cache and TLB, links and blocks forgotten at random."""
    run = 'console=ttyS0 vmm.run="seq 1 2000 | sort -rn | gzip -c | gzip -dc | sha256sum; i=0; while [ $i -lt 20 ]; do (exit 3) || i=$((i+1)); done; echo torture-done"'
    expected = hashlib.sha256(b"".join(b"%d\n" % i for i in range(2000, 0, -1))).hexdigest()
    with Session(*linux(append=run, extra=["-accel", "tcg,torture=2026"])) as vm:
        vm.expect(expected)
        vm.expect("torture-done")
        check(vm.wait() == 0, "status")


def instruments():
    """-perfmap, -d out_asm,mmu, info jit and its profile."""
    with tempfile.TemporaryDirectory() as folder:
        trace = os.path.join(folder, "trace")
        with Session(*linux(extra=["-perfmap", "-accel", "tcg,profile=on,tb-size=16", "-D", trace])) as vm:
            vm.expect(PROMPT)
            vm.send("\x01c")
            vm.expect(r"\(qemu\) ")
            vm.send("info jit -p 3\n")
            used, size = map(int, vm.expect(r"gen code size +(\d+)/(\d+)").groups())
            check(size == 16 << 20 and used <= size, f"{used} of {size} bytes of code")
            check(int(vm.expect(r"TB flush count +(\d+)").group(1)) > 0, "a boot fits 16 MiB of code cache")
            vm.expect(r"TB executions: \d+, guest instructions: \d+")
            vm.expect(r"\d+ +\d+ +[0-9.]+% +\d+ +\d+ +0x[0-9a-f]+")
            vm.send("log out_asm,mmu\n")
            vm.expect(r"\(qemu\) ")
            vm.send("\x01c")
            vm.send("uname -a; echo $((6*7))x\n")
            vm.expect("42x")
            names = f"/tmp/perf-{vm.process.pid}.map"
            check(re.search(r"^[0-9a-f]+ [0-9a-f]+ guest_ffffffff[0-9a-f]+$", open(names).read(), re.M), "no kernel code in the perf map")
            os.unlink(names)
            vm.send("\x01x")
            check(vm.wait() == 0, "status")
        text = open(trace).read()
        check("OUT: [size=" in text and "-- guest addr 0x" in text, "no host code in the trace")
        check(re.search(r"^MMU: user (read|write|fetch) of 0x[0-9a-f]+, CR3 0x[0-9a-f]+: page fault, error 0x[0-9a-f]+$", text, re.M),
              "no page fault in the trace")


if __name__ == "__main__":
    main([boots_to_a_shell_and_powers_off, runs_a_script_of_shell_work, reboots_and_no_reboot_ends, panic_reboots_or_ends,
          boots_an_elf_vmlinux_with_a_directory_as_initrd, boots_a_32_bit_kernel, boots_with_two_cpus, sees_the_topology_of_smp, the_clock_starts_and_moves_as_rtc_says,
          traces_are_limited_to_the_addresses_of_dfilter, the_two_engines_agree_in_lockstep, power_button_and_monitor, boots_under_torture, instruments])
