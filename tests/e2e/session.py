"""Driving a vmm on a pseudo-terminal the way a person would: type, wait for text, look at the exit status.

Waits are for text, never for time; the limits only keep a hung guest from hanging the run.
"""
import os
import fcntl
import pty
import re
import select
import signal
import subprocess
import sys
import termios
import time

GUESTS = os.environ.get("VMM_GUESTS", os.path.expanduser("~/.cache/vmm-guests"))
VMM = os.environ.get("VMM_BINARY", os.path.join(os.path.dirname(__file__), "../../build/release/bin/vmm"))
SKIP = 77
# The shell asks the terminal where its cursor is (ESC[6n) behind the prompt.
PROMPT = r"~ # (?:\x1b\[6n)?$"
LIMIT = float(os.environ.get("VMM_E2E_LIMIT", "400"))


def guest(path):
    """The path of a test guest's file; ends the test as skipped when scripts/guests has not been run."""
    full = os.path.join(GUESTS, path)
    if not os.path.exists(full):
        print(f"skipped: {full} is missing (scripts/guests fetches it)")
        sys.exit(SKIP)
    return full


class Failure(Exception):
    pass


class Session:
    def __init__(self, *args, program=VMM, env=None):
        self.args = [program, *args]
        self.text = ""
        self.at = 0
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(self.args, stdin=slave, stdout=slave, stderr=slave, close_fds=True, start_new_session=True,
                                        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
                                        env={**os.environ, **(env or {})})
        os.close(slave)
        self.status = None

    def __enter__(self):
        return self

    def __exit__(self, kind, value, trace):
        if kind is not None:
            print("--- transcript ---")
            print(self.text)
            print("--- end of transcript ---")
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)

    def _read(self, seconds):
        ready, _, _ = select.select([self.master], [], [], seconds)
        if not ready:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError:
            data = b""
        self.text += data.decode("utf-8", "replace")
        for _ in range(data.count(b"\x1b[6n")):  # where is the cursor? A terminal answers at once.
            os.write(self.master, b"\x1b[24;5R")
        return bool(data)

    def expect(self, pattern, limit=LIMIT):
        """Waits for the regular expression after what was matched before; returns the match."""
        end = time.monotonic() + limit
        while True:
            found = re.compile(pattern).search(self.text, self.at)
            if found:
                self.at = found.end()
                return found
            if time.monotonic() > end:
                raise Failure(f"no {pattern!r} within {limit} s")
            if not self._read(1.0) and self.process.poll() is not None and not self._read(0):
                found = re.compile(pattern).search(self.text, self.at)
                if found:
                    self.at = found.end()
                    return found
                raise Failure(f"vmm ended with {self.process.returncode} before {pattern!r}")

    def send(self, text):
        os.write(self.master, text.encode())

    def command(self, line, prompt=PROMPT):
        """Types a shell command and returns what it printed."""
        self.send(line + "\n")
        self.expect(re.escape(line[:40]))
        self.expect(r"\n")
        start = self.at
        match = self.expect(prompt)
        return self.text[start:match.start()].replace("\r", "")

    def wait(self, limit=LIMIT):
        """Waits for the end; returns the exit status (negative: the signal)."""
        end = time.monotonic() + limit
        while self.process.poll() is None:
            if time.monotonic() > end:
                raise Failure(f"vmm did not end within {limit} s")
            self._read(0.2)
        while self._read(0):
            pass
        return self.process.returncode

    def terminate(self):
        self.process.send_signal(signal.SIGTERM)


def linux(arch="amd64", append="console=ttyS0", memory="512", extra=()):
    """Arguments that boot the test guest."""
    return ["-m", memory, "-kernel", guest(f"{arch}/vmlinuz"), "-initrd", guest(f"{arch}/initrd.gz"), "-append", append, "-nographic", *extra]


def check(condition, what):
    if not condition:
        raise Failure(what)


def main(tests):
    """Runs the named tests given on the command line, or all of them."""
    wanted = sys.argv[1:] or [t.__name__ for t in tests]
    failed = 0
    for test in tests:
        if test.__name__ not in wanted:
            continue
        start = time.monotonic()
        try:
            test()
            print(f"ok    {test.__name__} ({time.monotonic() - start:.1f} s)", flush=True)
        except Failure as why:
            failed += 1
            print(f"FAIL  {test.__name__}: {why}", flush=True)
    sys.exit(1 if failed else 0)
