#!/usr/bin/env python3
"""House rules that a compiler does not check: which folder may include which, forbidden names, sizes of files.

usage: tidy.py [ROOT]      prints each breach as FILE:LINE: what; exit status 1 when there are any
"""
import os
import re
import subprocess
import sys

ROOT = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(__file__), "../..")

# Folder -> folders it may include besides itself. Dependencies point one way (ARCHITECTURE.md, "Layers").
BASE = ["vmm/base"]
MEMORY = BASE + ["vmm/memory"]
CPU = MEMORY + ["vmm/cpu"]
LAYERS = {
    "vmm/base": [],
    "vmm/memory": BASE,
    "vmm/cpu": MEMORY,
    "vmm/kvm": CPU,
    "vmm/tcg": CPU,
    "vmm/options": BASE,
    "devices": MEMORY,
    "block": BASE,
    "firmware": MEMORY,
    "ui": BASE + ["devices/core", "devices/input", "vmm/options"],
    "monitor": BASE + ["ui", "vmm/options"],
    "vmm/machine": CPU + ["vmm/tcg", "vmm/kvm", "devices", "firmware"],
    "vmm/snapshot": CPU + ["devices", "block"],
    "vmm/program": CPU + ["vmm/machine", "vmm/options", "vmm/tcg", "vmm/kvm", "devices", "firmware", "monitor", "ui", "block"],
}
# Pattern -> what to use instead. Checked in everything but tests.
BANNED = {
    r"\bstd::cout\b|\bstd::cerr\b": "Log, or a tool's own output stream",
    r"\b(sleep|usleep|nanosleep)\s*\(": "a Timer",
    r"\brand\s*\(\)": "an injected source",
    r"\bstrcpy\s*\(|\bsprintf\s*\(": "fmt",
    r"\b(TODO|FIXME|XXX)\b(?!:? \w+.*because)": "do it, or say why not ('because ...')",
    r"\bthrow\b": "Result",
}
# (file, pattern's replacement) -> why it stays.
EXEMPT = {
    ("vmm/kvm/kvm_api.cpp", "a Timer"): "the host's kernel runs its timers on a CPU where a thread sleeps for a moment",
}
MAX_LINES = 900
TABLES = (".inc", "instructions.inc")


def folder_of(path):
    best = ""
    for folder in LAYERS:
        if path.startswith(folder + "/") and len(folder) > len(best):
            best = folder
    return best


def main():
    files = subprocess.run(["git", "-C", ROOT, "ls-files", "*.h", "*.cpp"], capture_output=True, text=True, check=True).stdout.split()
    breaches = []
    for path in files:
        with open(os.path.join(ROOT, path), encoding="utf-8") as f:
            lines = f.read().splitlines()
        folder = folder_of(path)
        in_tests = path.startswith("tests/")
        if len(lines) > MAX_LINES:
            breaches.append(f"{path}:1: {len(lines)} lines: is there more than one job in it? (limit {MAX_LINES})")
        for number, line in enumerate(lines, 1):
            found = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if found and folder and not in_tests:
                target = found.group(1)
                allowed = [folder] + LAYERS[folder]
                if not any(target.startswith(a + "/") for a in allowed) and "/" in target and path != "vmm/main.cpp":
                    breaches.append(f"{path}:{number}: {folder} may not include {target}")
            if in_tests:
                continue
            code = line.split("//")[0] if not re.search(r"TODO|FIXME|XXX", line) else line
            for pattern, instead in BANNED.items():
                if re.search(pattern, code) and (path, instead) not in EXEMPT:
                    breaches.append(f"{path}:{number}: '{line.strip()[:60]}': use {instead}")
    print("\n".join(breaches) if breaches else f"{len(files)} files, no breaches")
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
