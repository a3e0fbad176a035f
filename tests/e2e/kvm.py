#!/usr/bin/env python3
"""KVM from outside: how far a kernel comes, and what is said when it cannot go on; what the command line refuses."""
import os
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from session import PROMPT, SKIP, VMM, Session, check, guest, linux, main  # noqa: E402


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
                          (["-machine", "accel=kvm:warp"], "warp")]:
        done = subprocess.run([VMM, *options, "-display", "none", "-serial", "none", "-monitor", "none"], stdin=subprocess.DEVNULL,
                              capture_output=True, text=True, timeout=60)
        check(done.returncode == 1, f"{options}: status {done.returncode}")
        check(word in done.stderr and "falling back" not in done.stderr, f"{options}: {done.stderr!r}")
        check(len(done.stderr.strip().splitlines()) == 1, f"{options}: more than one message: {done.stderr!r}")


if __name__ == "__main__":
    main([linux_runs_as_far_as_this_kvm_does, malformed_properties_are_one_error_and_no_fallback])
