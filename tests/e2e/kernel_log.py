#!/usr/bin/env python3
"""What the guest's kernel says of the machine beside what it says of QEMU's, and how much memory the machine takes."""
import os
import re
import shutil
import subprocess
import sys

sys.path.insert(0, os.path.dirname(__file__))
from session import PROMPT, SKIP, VMM, Session, check, linux, main  # noqa: E402

QEMU = "qemu-system-x86_64"
MIB = 1024 * 1024


def complaints(program, arch, model):
    """The kernel's messages of level "warning" and worse, without time stamps and numbers; None when it does not come up."""
    arguments = linux(arch=arch, memory="256", append='console=ttyS0 quiet vmm.run="echo BEGIN; dmesg -r; echo END"',
                      extra=["-cpu", model, "-no-reboot", *(["-nic", "none"] if program == QEMU else [])])
    try:
        done = subprocess.run([program, *arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=200)
    except subprocess.TimeoutExpired:
        return None
    text = done.stdout.decode(errors="replace").replace("\r", "")
    log = re.search(r"\nBEGIN\n(.*)\nEND\n", text, re.S)
    if not log:
        return None
    found = set()
    for level, message in re.findall(r"^<(\d+)>\[ *[0-9.]+\] (.*)$", log[1], re.M):
        if int(level) % 8 <= 4:
            found.add(re.sub(r"\d+", "N", message))
    return found


# What a kernel says under either program when the host is too busy to let it time the PIT.
OF_LOAD = {"tsc: Unable to calibrate against PIT"}


def compare(arch, model):
    if not shutil.which(QEMU):
        print(f"skipped: no {QEMU}")
        sys.exit(SKIP)
    theirs = set()
    for _ in range(3):  # on a busy machine its kernel may find no timer
        theirs = complaints(QEMU, arch, model)
        if theirs is not None:
            break
    if theirs is None:
        print("skipped: QEMU's guest does not come up here")
        sys.exit(SKIP)
    only_ours = None
    for _ in range(3):  # what the load of the host makes the kernel say does not come each time
        ours = complaints(VMM, arch, model)
        check(ours is not None, "the guest does not come up")
        ours -= OF_LOAD
        only_ours = ours - theirs if only_ours is None else only_ours & ours
        if not only_ours:
            return
    check(False, "the kernel complains of us alone: " + "; ".join(sorted(only_ours)))


def warns_of_nothing_that_qemu_is_not_warned_of():
    for model in "qemu64", "max":
        compare("amd64", model)


def a_32_bit_kernel_warns_of_nothing_that_qemu_is_not_warned_of():
    compare("i386", "qemu64")


def takes_little_more_memory_than_the_guest_has_touched():
    limit = 64 * MIB
    with Session(*linux()) as vm:
        vm.expect(r"vmm-guest: ready")
        vm.expect(PROMPT)
        guest = all_of_it = size = 0
        with open(f"/proc/{vm.process.pid}/smaps", encoding="utf-8") as maps:
            for line in maps:
                area = re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line)
                if area:
                    size = int(area[2], 16) - int(area[1], 16)
                share = re.match(r"Pss: +(\d+) kB", line)  # code is mapped twice, to write and to run it: once is resident
                if share:
                    all_of_it += int(share[1]) * 1024
                    guest += int(share[1]) * 1024 if size >= 512 * MIB else 0
        print(f"guest memory {guest // MIB} MiB, the rest {(all_of_it - guest) // MIB} MiB")
        check(guest > 16 * MIB, "the guest's memory was not found")
        check(all_of_it - guest <= limit, f"{(all_of_it - guest) // MIB} MiB beside what the guest touched; {limit // MIB} is the limit")


if __name__ == "__main__":
    main([warns_of_nothing_that_qemu_is_not_warned_of, a_32_bit_kernel_warns_of_nothing_that_qemu_is_not_warned_of,
          takes_little_more_memory_than_the_guest_has_touched])
