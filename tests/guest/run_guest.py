"""Runs one bare-metal program under a vmm and judges it.

    run_guest.py VMM PROGRAM.elf ACCEL [--expect pass|told|reset|survive] [-- more vmm arguments]

A program passes when it leaves through isa-debug-exit with 0 (process status 1) and its last line counts no failure. With --expect reset it
passes when the guest resets itself (-no-reboot turns that into status 0); with --expect told when it passes and for each line "expects: TEXT" of the
guest a line TEXT comes from vmm (-d guest_errors,unimp); with --expect survive when vmm ends in order, by itself or, after
--limit seconds, on SIGTERM. Exit status 77: nothing of it can run here.

Where KVM has no hardware virtualization beneath it, the host's kernel emulates the guest, and not all of it. There a case that ends with
KVM's report of an instruction it cannot emulate is left out by name, and the program runs again without it; cases in which that emulator
does something else than a CPU are named in emulated_kvm.txt beside this file, each with what it does, and may fail. The last line counts both.
With lockstep=on the cases named in lockstep_kvm.txt, each with what the two engines do differently and what the manual says, are left out from
the start; any difference in another case is a failure. What begins there with one of OF_EVERY_KVM is no fault and left out on every host.
What emulated_kvm.txt says of the controllers in the kernel ("in-kernel") holds for every KVM, unless they are ours (kernel-irqchip=off).
"""
import argparse
import os
import re
import subprocess
import sys
import tempfile

SKIP = 77
OF_EVERY_KVM = ("stepping: ", "free choice: ", "models: ", "looking: ")
CANNOT = re.compile(r"KVM cannot emulate this instruction.*\nCPU \d+ at (\S+), code: (.*)")


def hardware_virtualization():
    """Whether the host CPU offers it to KVM."""
    with open("/proc/cpuinfo") as info:
        return bool(re.search(r"^flags\s*:.*\b(vmx|svm)\b", info.read(), re.M))


def named_cases(table, program):
    """{case: what is said of it} in a table beside this file, for one program ("64/paging")."""
    with open(os.path.join(os.path.dirname(__file__), table)) as lines:
        split = [line.strip().partition(": ") for line in lines]
    return {where.split()[1]: what for where, _, what in split if where.startswith(program + " ")}


def kvms_differences(program, accel, emulates):
    """What this KVM does otherwise than a CPU."""
    ours = "irqchip=off" in accel or "lockstep=on" in accel
    return {case: what for case, what in named_cases("emulated_kvm.txt", program).items()
            if (not ours if what.startswith("in-kernel") else emulates)}


def lockstep_differences(program, emulates):
    """In what the interpreter and this KVM differ."""
    return {case: what for case, what in named_cases("lockstep_kvm.txt", program).items() if emulates or what.startswith(OF_EVERY_KVM)}


class Run:
    """One start of the program, perhaps without some of its cases."""

    def __init__(self, options, without=()):
        rest = list(options.rest)
        if without:
            line = "without=" + ",".join(without)
            if "-append" in rest:
                rest[rest.index("-append") + 1] += " " + line
            else:
                rest += ["-append", line]
        command = [options.vmm, "-accel", options.accel, "-kernel", options.program, "-display", "none", "-serial", "none", "-monitor", "none",
                   "-debugcon", "stdio", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-device", "pc-testdev", "-no-reboot", *rest]
        print(" ".join(command), flush=True)
        self.late = False
        vmm = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        try:
            output = vmm.communicate(timeout=options.limit)[0]
        except subprocess.TimeoutExpired:
            self.late = True
            vmm.terminate()
            try:
                output = vmm.communicate(timeout=30)[0]
            except subprocess.TimeoutExpired:
                vmm.kill()
                output = vmm.communicate()[0]
        self.status = vmm.returncode
        self.text = output.decode(errors="replace")
        print(self.text)
        if self.late:
            print(f"no end within {options.limit:.0f} s; on SIGTERM it ended with {self.status}")

    def open_case(self):
        """The case that was under way at the end."""
        begun = re.findall(r"^case (\S+)$", self.text, re.M)
        return begun[-1] if begun and not re.search(rf"^(ok|FAIL|skip) {begun[-1]}\b", self.text, re.M) else None

    def cannot(self):
        """What KVM could not emulate, in words."""
        found = CANNOT.search(self.text)
        return f"KVM cannot emulate {' '.join(found.group(2).split()[:8])} at {found.group(1)}" if found else None

    def results(self, kind):
        return dict(re.findall(rf"^{kind} ([^\s:]+)(?:: (.*))?$", self.text, re.M))

    def counted(self):
        found = re.findall(r"^(\d+) passed, (\d+) failed", self.text, re.M)
        return (int(found[-1][0]), int(found[-1][1])) if found else None

    def offered(self):
        return not (re.search(r"^vmm: .*(engine=|accel|kvm|KVM)", self.text) and self.status == 1 and "case " not in self.text)


def on_kvm(options, emulates):
    """All cases this host's KVM can run; those it cannot, named and counted."""
    program = os.path.basename(os.path.dirname(options.program)) + "/" + os.path.basename(options.program).removesuffix(".elf")
    known = kvms_differences(program, options.accel, emulates)
    skipped, passed, failed = {}, set(), {}
    if "lockstep=on" in options.accel:
        skipped = lockstep_differences(program, emulates)
    differing = len(skipped)
    while True:
        run = Run(options, without=skipped)
        if not run.offered():
            print("skipped: this accelerator is not offered here")
            return SKIP
        passed |= set(run.results("ok"))
        failed |= run.results("FAIL")
        skipped |= {case: why for case, why in run.results("skip").items() if "cannot emulate" in why}
        if run.counted() is not None and run.status in (1, 3):
            break
        if re.search(r"^vmm: lockstep: .* part after ", run.text, re.M):
            return 1
        case = run.open_case()
        why = (run.cannot() if emulates else None) or (known.get(case) if case else None)
        if not case and why:
            print(f"skipped: {why} before the first case")
            return SKIP
        if not why:
            return 1
        skipped[case] = why
    differs = {case: known[case] for case in failed if case in known}
    for case, why in {**skipped, **differs}.items():
        print(f"skipped {program} {case}: {why}")
    print(f"{len(passed)} passed, {len(set(failed) - set(differs))} failed; {len(skipped) - differing} beyond this host's KVM, "
          f"{len(differs) + differing} where it is no CPU")
    if set(failed) - set(differs):
        return 1
    return 0 if passed else SKIP


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("vmm")
    parser.add_argument("program")
    parser.add_argument("accel")
    parser.add_argument("--expect", choices=["pass", "told", "reset", "survive"], default="pass")
    parser.add_argument("--limit", type=float, default=120)
    parser.add_argument("rest", nargs="*")
    options = parser.parse_args()

    if options.accel.startswith("kvm") and options.expect == "pass":
        return on_kvm(options, emulates=not hardware_virtualization())
    with tempfile.NamedTemporaryFile() as log:
        if options.expect == "told":
            options.rest += ["-D", log.name]
        run = Run(options)
        told = log.read().decode().splitlines()
    if not run.offered():
        print("skipped: this accelerator is not offered here")
        return SKIP
    if run.late and options.expect != "survive":
        return 1
    if options.expect == "reset":
        return 0 if run.status == 0 and "about to reset" in run.text else 1
    if options.expect == "survive":  # whatever the guest did to itself (it may run in circles), vmm ended by its own decision
        return 0 if 0 <= run.status < 64 else 1
    if options.expect == "told":
        missing = [text for text in re.findall(r"^expects: (.*)$", run.text, re.M) if text not in told]
        for text in missing:
            print("not told:", text)
        if missing:
            return 1
    counted = run.counted()
    return 0 if counted and counted[1] == 0 and counted[0] > 0 and run.status == 1 and "cannot emulate" not in run.text else 1


if __name__ == "__main__":
    sys.exit(main())
