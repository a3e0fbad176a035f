"""Runs one bare-metal program under a vmm and judges it.

    run_guest.py VMM PROGRAM.elf ACCEL [--expect pass|reset] [-- more vmm arguments]

A program passes when it leaves through isa-debug-exit with 0 (process status 1) and its last line counts no failure. With --expect reset it
passes when the guest resets itself (-no-reboot turns that into status 0). Exit status 77: the accelerator is not offered here.
"""
import argparse
import re
import subprocess
import sys

SKIP = 77


def hardware_virtualization():
    """Whether the host CPU offers it to KVM. A KVM without it emulates ring 0 in part only, which is not what these programs test."""
    with open("/proc/cpuinfo") as info:
        return bool(re.search(r"^flags\s*:.*\b(vmx|svm)\b", info.read(), re.M))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vmm")
    parser.add_argument("program")
    parser.add_argument("accel")
    parser.add_argument("--expect", choices=["pass", "reset", "survive"], default="pass")
    parser.add_argument("--limit", type=float, default=120)
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()

    if options.accel == "kvm" and not hardware_virtualization():
        print("skipped: the host CPU offers KVM no hardware virtualization")
        return SKIP
    command = [options.vmm, "-accel", options.accel, "-kernel", options.program, "-display", "none", "-serial", "none", "-monitor", "none",
               "-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-device", "pc-testdev", "-no-reboot", *options.rest]
    print(" ".join(command), flush=True)
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=options.limit)
    except subprocess.TimeoutExpired as late:
        print((late.stdout or b"").decode(errors="replace"))
        print(f"no end within {options.limit:.0f} s")
        return 1
    text = done.stdout.decode(errors="replace")
    print(text)
    if re.search(r"^vmm: .*(engine=|accel|kvm|KVM)", text) and done.returncode == 1 and " passed, " not in text:
        print("skipped: this accelerator is not offered here")
        return SKIP
    if options.expect == "reset":
        return 0 if done.returncode == 0 and "about to reset" in text else 1
    if options.expect == "survive":  # whatever the guest did to itself, vmm ended by its own decision
        return 0 if 0 <= done.returncode < 64 else 1
    counted = re.findall(r"^(\d+) passed, (\d+) failed", text, re.M)
    return 0 if counted and counted[-1][1] == "0" and int(counted[-1][0]) > 0 and done.returncode == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
