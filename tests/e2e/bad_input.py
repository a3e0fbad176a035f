"""What is wrong with a command line or a boot file is one clear message, status 1, and a terminal as it was.

Hostile command lines are random with a fixed seed; whatever they mean, the program ends by itself, without a signal and
without a sanitizer's report.
"""
import gzip
import lzma
import os
import pty
import random
import signal
import struct
import subprocess
import sys
import tempfile
import termios

from session import VMM, LIMIT, Failure, check, guest, main

QUIET = ["-display", "none", "-serial", "none", "-monitor", "none"]


def run(*args, piped=None):
    """The status and what was printed, on a terminal that must be as before afterwards, or with `piped` as all of its input."""
    master, slave = pty.openpty()
    before = termios.tcgetattr(slave)
    source = {"stdin": slave} if piped is None else {"input": piped}
    try:
        done = subprocess.run([VMM, *args], **source, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=LIMIT)
        check(termios.tcgetattr(slave) == before, f"{args}: the terminal has changed")
    except subprocess.TimeoutExpired:
        raise Failure(f"{args}: no end within {LIMIT} s")
    finally:
        os.close(master)
        os.close(slave)
    text = done.stdout.decode("utf-8", "replace")
    check("Sanitizer" not in text and "runtime error" not in text, f"{args}:\n{text}")
    return done.returncode, text


def refused(says, *args, lines=1):
    status, text = run(*args)
    check(status == 1, f"{args}: status {status}\n{text}")
    check(says in text, f"{args}: does not say {says!r}:\n{text}")
    check(text.count("\n") == lines and text.startswith("vmm: "), f"{args}: not {lines} line(s):\n{text}")


class Files:
    """Files that live for the length of a test."""

    def __enter__(self):
        self.folder = tempfile.TemporaryDirectory()
        return self

    def __exit__(self, *_):
        self.folder.cleanup()

    def make(self, content, size=None):
        path = os.path.join(self.folder.name, f"file{len(os.listdir(self.folder.name))}")
        with open(path, "wb") as file:
            file.write(content)
            if size:
                file.truncate(size)
        return path


def elf_for(machine):
    head = struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0x1000, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return b"\x7fELF\x02\x01\x01" + bytes(9) + head + struct.pack("<IIQQQQQQ", 1, 5, 0, 1 << 20, 1 << 20, 120, 120, 4096)


def kernels():
    with open(guest("amd64/vmlinuz"), "rb") as file:
        kernel = file.read()
    with open(guest("amd64/vmlinux"), "rb") as file:
        elf = file.read(4 << 20)
    noise = random.Random(1)
    with Files() as files:
        cases = [("No such file or directory", files.folder.name + "/none"), ("Is a directory", files.folder.name),
                 ("the file is empty", files.make(b"")), ("is cut off", files.make(elf)),
                 ("ARM64", files.make(elf_for(183))), ("RISC-V", files.make(elf_for(243))), ("MIPS", files.make(elf_for(8)))]
        cases += [("is cut off", files.make(kernel[:size])) for size in (700, 5000, 100000, len(kernel) // 2)]
        cases += [("invalid kernel header", files.make(noise.randbytes(size))) for size in (1, 511, 512, 4096, 100000)]
        cases += [("invalid kernel header", path) for path in ("/dev/zero", "/dev/urandom", files.make(b"", size=3 << 30))]
        for says, path in cases:
            refused(says, *QUIET, "-m", "96", "-kernel", path)
        # A FIFO that nobody writes to is waited for, until a signal.
        fifo = files.folder.name + "/fifo"
        os.mkfifo(fifo)
        waiting = subprocess.Popen([VMM, *QUIET, "-kernel", fifo], stdin=subprocess.DEVNULL)
        os.close(os.open(fifo, os.O_WRONLY))  # returns when it has been opened
        check(waiting.wait(LIMIT) == 1, "a FIFO that is closed unwritten")
        waiting = subprocess.Popen([VMM, *QUIET, "-kernel", fifo], stdin=subprocess.DEVNULL)
        waiting.terminate()
        check(waiting.wait(LIMIT) == -signal.SIGTERM, "a FIFO without a writer, SIGTERM")
        # Damaged in the header: refused, or loaded and left by the monitor before its first instruction; never a crash.
        loaded = 0
        for _ in range(40):
            damaged = bytearray(kernel)
            for _ in range(noise.randrange(1, 8)):
                damaged[noise.randrange(0x1e0, 0x270)] = noise.randrange(256)
            path = files.make(bytes(damaged))
            status, text = run(*QUIET[:-2], "-monitor", "stdio", "-m", "96", "-S", "-kernel", path, piped=b"quit\n")
            check(status == 0 or status == 1 and text.startswith("vmm: "), f"damaged header: status {status}\n{text}")
            loaded += status == 0
            os.unlink(path)
        check(0 < loaded < 40, f"{loaded} of 40 damaged kernels were loaded")


def initrds():
    kernel = guest("amd64/vmlinuz")
    with Files() as files:
        refused("No such file or directory", *QUIET, "-m", "96", "-kernel", kernel, "-initrd", files.folder.name + "/none")
        with open(guest("amd64/initrd.gz"), "rb") as file:
            compressed = file.read()
        archive = gzip.decompress(compressed)
        refused("room", *QUIET, "-m", "96", "-kernel", kernel, "-initrd", files.make(archive, size=200 << 20))
        noise = random.Random(2)
        cases = [("is empty", b""), ("is cut off", compressed[:len(compressed) // 2]), ("is cut off", archive[:100000]),
                 ("is cut off", archive + lzma.compress(archive)[:300000])]
        cases += [("nothing that Linux knows", content) for content in (noise.randbytes(1), noise.randbytes(100000), bytes(4096))]
        for elf in "vmlinuz", "vmlinux":
            for says, content in cases:
                refused(says, *QUIET, "-m", "256", "-kernel", guest(f"amd64/{elf}"), "-initrd", files.make(content))
        for endless in "/dev/zero", "/dev/urandom":
            refused("nothing that Linux knows", *QUIET, "-kernel", kernel, "-initrd", endless)
        # Passed on when told so: Linux's own panic, which ends the run in order.
        status, text = run("-display", "none", "-serial", "stdio", "-monitor", "none", "-no-reboot", "-m", "256", "-kernel", kernel, "-machine",
                           "initrd-check=off", "-append", "console=ttyS0 panic=-1", "-initrd", files.make(noise.randbytes(100000)), piped=b"")
        check(status == 0 and "Unable to mount root fs" in text, f"initrd-check=off: status {status}\n{text}")
    refused("-initrd only allowed with -kernel option", "-initrd", "x")
    refused("-append only allowed with -kernel option", "-append", "x")


def options():
    refused("too little memory", "-m", "0")
    refused("too little memory", "-m", "1")
    refused("cannot set up guest memory 'pc.ram'", "-m", "100T")
    refused("Parameter 'size' expects a non-negative number below 2^64", "-m", "foo", lines=3)
    refused("did you mean -kernel?", "-kernl", "x")
    refused("Parameter 'smp.cpus' expects integer", "-smp", "foo")
    refused("Invalid SMP CPUs 300", "-smp", "300")
    refused("unable to find CPU model 'foo'", "-cpu", "foo")
    refused("unsupported machine type", "-machine", "foo", lines=2)
    refused("the machine 'q35' is not built yet", "-M", "q35", lines=2)
    refused("-machine usb=on: USB is not built yet", "-M", "pc,usb=on")
    refused("Property 'pc-i440fx-7.2-machine.foo' not found", "-M", "pc,foo=on")
    refused("there is nothing to boot", *QUIET, "-M", "pc,usb=off,vmport=off,dump-guest-core=off,mem-merge=off", "-mem-prealloc")
    refused("not built yet", "-hda", "disk.img")
    refused("not built yet", "-device", "e1000,netdev=n")
    refused("'foo' is not a valid char driver", "-serial", "foo", lines=2)
    refused("Property 'qemu64-x86_64-cpu.foo' not found", *QUIET, "-cpu", "qemu64,foo=1")
    refused("Chardev 'nope' not found", *QUIET, "-device", "isa-debugcon,chardev=nope")
    exits = "-device", "isa-debug-exit,iobase=0xf4", "-device", "isa-debug-exit,iobase=0x501"
    refused("isa-debug-exit,iobase=0x501: the machine has one isa-debug-exit already", *QUIET, *exits)
    refused("cannot use stdio by multiple character devices", "-serial", "mon:stdio", "-monitor", "stdio", lines=2)


def hostile_command_lines():
    noise = random.Random(7)
    names = [line.split()[0] for line in run("-help")[1].splitlines() if line.startswith("-")]
    # No options that leave something behind, and none that print and end.
    names = [n for n in names if n.lstrip("-") not in ("daemonize", "pidfile", "D", "h", "help", "version", "perfmap")]
    pieces = ["", ",", "=", ":", "on", "off", "help", "?", "0", "-1", "1", "99999999999999999999", "0x", "1e9", "4G", "%s%n", "\xff",
              "a" * 5000, "id=a", "id=a,id=a", "file=/", "unix:/nonexistent/x", "tcp::0", "tcp:[::", "stdio", "mon:", "mon:mon:stdio", "null",
              "pty", "file:/nonexistent/f", "cpus=", "cores=0", "base=", "size=", "type=", "accel=tcg", "engine=", "tb-size=-1", "=,=,=", ",,,,",
              "/dev/null", "..", "\n", "driver=", "isa-debug-exit", "iobase=", "chardev=a", "qemu64", "+", "+avx,-avx", "enforce"]
    for _ in range(300):
        words = []
        for _ in range(noise.randrange(1, 6)):
            words.append(noise.choice(names))
            if noise.random() < 0.8:
                words.append(noise.choice(["", ",", "=", ":"]).join(noise.choices(pieces, k=noise.randrange(1, 4))))
        status, text = run(*QUIET, *words, "-kernel", "/nonexistent/kernel")
        check(status in (0, 1), f"{words}: status {status}\n{text}")


if __name__ == "__main__":
    main([kernels, initrds, options, hostile_command_lines])
