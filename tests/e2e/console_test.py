"""Terminal, pipes, sockets and signals of the console, driven from outside on a pseudo-terminal.

usage: console_test.py PROGRAM [TEST...]   PROGRAM is console_host, or anything that speaks its command line
"""
import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import termios
import time
import traceback

DEADLINE = 5  # seconds any single wait may take


class Session:
    """A session on a pseudo-terminal whose leader (a tiny shell) runs one job in its own process group."""

    def __init__(self, argv, background=False, wrapper=False):
        self.master, self.slave = pty.openpty()
        report_r, self.report_w = os.pipe()
        self.report = report_r
        release_r, self.release = os.pipe()
        self.output = b""
        self.before = termios.tcgetattr(self.slave)
        self.leader = os.fork()
        if self.leader == 0:
            try:
                self._leader(argv, background, wrapper, release_r)
            finally:
                os._exit(99)
        os.close(self.report_w)
        os.close(release_r)
        self.pid = int(self._report_line())  # of the program itself

    def _leader(self, argv, background, wrapper, release_r):
        os.close(self.master)
        os.close(self.release)
        os.setsid()
        fcntl.ioctl(self.slave, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        job = os.fork()
        if job == 0:
            os.setpgid(0, 0)
            if not background:
                os.tcsetpgrp(self.slave, os.getpid())
            signal.signal(signal.SIGTTOU, signal.SIG_DFL)
            signal.signal(signal.SIGHUP, signal.SIG_DFL)
            for fd in range(3):
                os.dup2(self.slave, fd)
            if wrapper:
                child = os.fork()
                if child:
                    os.write(self.report_w, b"%d\n" % child)
                    os.close(self.report_w)
                    os.waitpid(child, 0)
                    os._exit(0)
            os.execv(argv[0], argv)
        if not wrapper:  # else the wrapper has reported its child
            os.write(self.report_w, b"%d\n" % job)
        while True:
            _, status = os.waitpid(job, os.WUNTRACED)
            os.tcsetpgrp(self.slave, os.getpgrp())
            if os.WIFSTOPPED(status):
                os.write(self.report_w, b"stopped\n")
                os.read(release_r, 1)
                os.tcsetpgrp(self.slave, job)
                os.killpg(job, signal.SIGCONT)
                continue
            code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else -os.WTERMSIG(status)
            os.write(self.report_w, b"%d\n" % code)
            os.read(release_r, 1)
            os._exit(0)

    def _report_line(self):
        line = b""
        while not line.endswith(b"\n"):
            ready, _, _ = select.select([self.report], [], [], DEADLINE)
            assert ready, "the job does not end; output so far: %r" % self.output
            byte = os.read(self.report, 1)
            assert byte, "the session leader died"
            line += byte
        return line.strip().decode()

    def wait_for(self, text):
        """Reads until `text` (a regular expression) has been shown; what was shown up to it is consumed."""
        end = time.monotonic() + DEADLINE
        while True:
            found = re.search(text, self.output, re.S)
            if found:
                self.output = self.output[found.end():]
                return found
            left = end - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(0, left))
            assert ready, "no %r in %r" % (text, self.output)
            self.output += os.read(self.master, 4096)

    def type(self, text):
        os.write(self.master, text)

    def raw(self):
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def result(self):
        code = self._report_line()
        return code if code == "stopped" else int(code)

    def restored(self):
        assert termios.tcgetattr(self.slave) == self.before, "terminal settings differ"
        assert not fcntl.fcntl(self.slave, fcntl.F_GETFL) & os.O_NONBLOCK, "O_NONBLOCK leaked"

    def resume(self):
        os.write(self.release, b"x")

    def close(self):
        os.close(self.release)
        os.close(self.master)
        os.close(self.slave)
        os.kill(self.leader, signal.SIGKILL)
        os.waitpid(self.leader, 0)


def session(test):
    def run(program):
        made = []

        def start(*options, **how):
            made.append(Session([program, *options], **how))
            return made[-1]
        try:
            test(start)
        finally:
            for s in made:
                s.close()
    run.__name__ = test.__name__
    return run


@session
def ctrl_a_x_ends_and_restores(start):
    s = start("-nographic")
    s.wait_for(rb"ready")
    assert s.raw()
    s.type(b"a\x03")
    s.wait_for(rb"<61><03>")  # Ctrl-C is the guest's
    s.type(b"\x01x")
    s.wait_for(rb"QEMU: Terminated")
    assert s.result() == 0
    s.restored()


@session
def modes_the_guest_set_are_undone(start):
    s = start("-nographic")
    s.wait_for(rb"ready")
    s.type(b"W")
    s.wait_for(rb"\x1b\[\?25l<57>")
    s.type(b"\x01x")
    s.wait_for(rb"Terminated.*\x1b\[\?7h\x1b\[0m\x1b\[\?25h\x1b\[\?1049l")
    assert s.result() == 0


@session
def signals_that_end_us_restore(start):
    for number in signal.SIGTERM, signal.SIGINT, signal.SIGHUP:
        s = start("-nographic")
        s.wait_for(rb"ready")
        os.kill(s.pid, number)
        s.wait_for(rb"terminating on signal %d from pid %d \(python" % (number, os.getpid()))
        assert s.result() == 0
        s.restored()


@session
def crashes_restore(start):
    for key, number in ((b"S", signal.SIGSEGV), (b"A", signal.SIGABRT)):
        s = start("-nographic")
        s.wait_for(rb"ready")
        s.type(key)
        assert s.result() == -number
        s.restored()


@session
def signals_nobody_handles_restore(start):
    for number in signal.SIGQUIT, signal.SIGALRM, signal.SIGXCPU, signal.SIGUSR2, signal.SIGSYS, signal.SIGTRAP:
        s = start("-nographic")
        s.wait_for(rb"ready")
        os.kill(s.pid, number)
        assert s.result() == -number
        s.restored()


@session
def plain_stdio_keeps_ctrl_c_for_us(start):
    s = start("-display", "none", "-serial", "stdio", "-monitor", "none")
    s.wait_for(rb"ready")
    assert s.raw()
    s.type(b"\x03")
    s.wait_for(rb"terminating on signal 2")
    assert s.result() == 0
    s.restored()


@session
def ctrl_z_gives_the_terminal_back_and_fg_takes_it_again(start):
    s = start("-display", "none", "-serial", "stdio", "-monitor", "none")
    s.wait_for(rb"ready")
    s.type(b"\x1a")
    assert s.result() == "stopped"
    s.restored()
    s.resume()
    end = time.monotonic() + DEADLINE
    while not s.raw():
        assert time.monotonic() < end
        time.sleep(0.01)
    s.type(b"q")
    s.wait_for(rb"<71>")
    os.kill(s.pid, signal.SIGTERM)
    assert s.result() == 0
    s.restored()


@session
def in_the_background_neither_stopped_nor_eating_the_terminal(start):
    s = start("-nographic", background=True)
    s.wait_for(rb"ready")
    assert not s.raw()
    s.type(b"ls\n")  # for the shell
    os.set_blocking(s.slave, False)
    end = time.monotonic() + DEADLINE
    line = b""
    while line != b"ls\n":
        assert time.monotonic() < end
        try:
            line += os.read(s.slave, 10)
        except BlockingIOError:
            time.sleep(0.01)
    os.set_blocking(s.slave, True)
    os.kill(s.pid, signal.SIGTERM)
    assert s.result() == 0
    s.restored()


@session
def the_death_of_the_parent_restores(start):
    s = start("-nographic", wrapper=True)
    s.wait_for(rb"ready")
    assert s.raw()
    with open("/proc/%d/stat" % s.pid) as stat:
        parent = int(stat.read().rsplit(")", 1)[1].split()[1])
    os.kill(parent, signal.SIGKILL)
    s.wait_for(rb"the parent process is gone")
    s.restored()


@session
def the_monitor_is_a_key_away(start):
    s = start("-nographic", "-name", "toy")
    s.wait_for(rb"ready")
    s.type(b"\x01c")
    s.wait_for(rb"VMM 0 monitor - type 'help' for more information\r+\n\(qemu\) ")
    s.type(b"info na\t\r")
    s.wait_for(rb"toy\r+\n\(qemu\) ")
    s.type(b"\x01cz")
    s.wait_for(rb"<7a>")
    s.type(b"\x01b")
    s.wait_for(rb"<break>")
    s.type(b"\x01cquit\r")
    assert s.result() == 0
    s.restored()


@session
def a_lot_of_output_is_whole(start):
    s = start("-nographic")
    s.wait_for(rb"ready\r+\n")
    s.type(b"L")
    text = b""
    while b"<4c>" not in text[-10:]:
        text += os.read(s.master, 4096)
    assert text.count(b"l") == 200000


def bad_options_leave_the_terminal_alone(program):
    @session
    def run(start):
        s = start("-nographic", "-serial", "file:/no/such/dir/x")
        s.wait_for(rb"-serial file:/no/such/dir/x: Could not open '/no/such/dir/x': No such file or directory\r\n")
        s.wait_for(rb"could not connect serial device to character backend 'file:/no/such/dir/x'\r\n")
        assert s.result() == 1
        s.restored()
    run(program)


def pipes_work_and_the_end_of_input_is_not_the_end(program):
    p = subprocess.Popen([program, "-nographic"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(b"ab")
    p.stdin.close()
    text = b""
    while b"<62>" not in text:
        text += os.read(p.stdout.fileno(), 100)
    assert text.startswith(b"ready\r\n<61>"), text
    assert p.poll() is None
    p.terminate()
    assert p.wait(DEADLINE) == 0


def null_input_and_file_output_work(program):
    with tempfile.NamedTemporaryFile() as out:
        p = subprocess.Popen([program, "-nographic"], stdin=subprocess.DEVNULL, stdout=out)
        end = time.monotonic() + DEADLINE
        while b"ready" not in open(out.name, "rb").read():
            assert time.monotonic() < end
            time.sleep(0.01)
        cpu = lambda: sum(int(x) for x in open("/proc/%d/stat" % p.pid).read().rsplit(")", 1)[1].split()[11:13])
        before = cpu()
        time.sleep(0.5)
        assert cpu() - before < 20, "it spins on an input that has ended"
        p.terminate()
        assert p.wait(DEADLINE) == 0


def a_full_output_pipe_blocks_nothing(program):
    p = subprocess.Popen([program, "-nographic"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    p.stdin.write(b"LLLL\x01x")  # nobody reads
    p.stdin.flush()
    assert p.wait(DEADLINE) == 0


def a_socket_server_waits_and_the_monitor_has_its_own(program):
    with tempfile.TemporaryDirectory() as folder:
        serial, monitor = folder + "/s", folder + "/m"
        p = subprocess.Popen([program, "-display", "none", "-monitor", "unix:%s,server,nowait" % monitor,
                              "-serial", "unix:%s,server" % serial], stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
        line = p.stderr.readline()
        assert b"waiting for connection on: disconnected:unix:%s,server=on" % serial.encode() in line, line
        talk = []
        for path in serial, monitor:
            talk.append(socket.socket(socket.AF_UNIX))
            talk[-1].settimeout(DEADLINE)
            talk[-1].connect(path)
        def until(sock, text):
            got = b""
            while text not in got:
                piece = sock.recv(1000)
                assert piece, got
                got += piece
        until(talk[0], b"ready\r\n")
        talk[0].sendall(b"x")
        until(talk[0], b"<78>")
        until(talk[1], b"(qemu) ")
        talk[1].sendall(b"info status\nquit\n")
        until(talk[1], b"VM status: running")
        assert p.wait(DEADLINE) == 0
        p.stderr.close()


TESTS = [
    ctrl_a_x_ends_and_restores, modes_the_guest_set_are_undone, signals_that_end_us_restore, crashes_restore,
    signals_nobody_handles_restore, plain_stdio_keeps_ctrl_c_for_us, ctrl_z_gives_the_terminal_back_and_fg_takes_it_again,
    in_the_background_neither_stopped_nor_eating_the_terminal, the_death_of_the_parent_restores,
    the_monitor_is_a_key_away, a_lot_of_output_is_whole, bad_options_leave_the_terminal_alone,
    pipes_work_and_the_end_of_input_is_not_the_end, null_input_and_file_output_work,
    a_full_output_pipe_blocks_nothing, a_socket_server_waits_and_the_monitor_has_its_own,
]


def main():
    program, names = os.path.abspath(sys.argv[1]), sys.argv[2:]
    failed = 0
    for test in TESTS:
        if names and test.__name__ not in names:
            continue
        try:
            test(program)
            print("ok      ", test.__name__, flush=True)
        except Exception:
            failed += 1
            print("FAILED  ", test.__name__, flush=True)
            traceback.print_exc()
    sys.exit(1 if failed else 0)


main()
