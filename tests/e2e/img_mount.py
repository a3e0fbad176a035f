#!/usr/bin/env python3
"""vmm-img mount: the disk and its partitions as files, read and written through FUSE."""
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time

SKIPPED = 77
SECTOR = 512
VMM_IMG = os.path.join(os.environ.get("VMM_BIN_DIR", ""), "vmm-img")


def fuse_works():
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR))
    except OSError as error:
        print("/dev/fuse cannot be opened: %s" % error)
        return False
    return shutil.which("fusermount3") is not None


def make_disk(path):
    """1 MiB with a primary partition at sector 64 and a logical one at sector 1008."""
    disk = bytearray(2048 * SECTOR)

    def entry(table, index, kind, start, count):
        struct.pack_into("<B3xB3xII", disk, table * SECTOR + 446 + index * 16, 0, kind, start, count)
        disk[table * SECTOR + 510:table * SECTOR + 512] = b"\x55\xaa"

    entry(0, 0, 0x83, 64, 100)
    entry(0, 1, 0x05, 1000, 500)
    entry(1000, 0, 0x83, 8, 50)
    disk[64 * SECTOR:64 * SECTOR + 5] = b"first"
    disk[1008 * SECTOR:1008 * SECTOR + 5] = b"fifth"
    with open(path, "wb") as file:
        file.write(disk)


class Mounted:
    def __init__(self, image, directory, *options):
        self.process = subprocess.Popen([VMM_IMG, "mount", *options, image, directory], stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.directory = directory
        line = self.process.stdout.readline()
        assert "is mounted on" in line, self.process.stderr.read()

    def finish(self, how):
        if how == "unmount":
            subprocess.run(["fusermount3", "-u", self.directory], check=True)
        else:
            self.process.send_signal(how)
        return self.process.wait(timeout=60)


def wait_until_empty(directory):
    for _ in range(2400): # two minutes, for a busy machine
        try:
            if not os.listdir(directory):
                return
        except OSError:
            pass
        time.sleep(0.05)
    raise AssertionError("still mounted")


def shows_disk_and_partitions(image, directory):
    make_disk(image)
    mounted = Mounted(image, directory, "-f", "raw")
    assert sorted(os.listdir(directory)) == ["disk", "p1", "p5"], os.listdir(directory)
    assert os.path.getsize(directory + "/p1") == 100 * SECTOR
    with open(directory + "/p5", "rb") as file:
        assert file.read(5) == b"fifth"
    with open(directory + "/p1", "r+b", buffering=0) as file:
        assert file.read(5) == b"first"
        file.seek(1000)
        file.write(b"changed")
        os.fsync(file.fileno())
    with open(directory + "/disk", "rb") as file:
        file.seek(64 * SECTOR + 1000)
        assert file.read(7) == b"changed"
    assert mounted.finish("unmount") == 0
    with open(image, "rb") as file:
        file.seek(64 * SECTOR + 1000)
        assert file.read(7) == b"changed"


def ends_cleanly_on_a_signal(image, directory):
    make_disk(image)
    for signal_number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
        mounted = Mounted(image, directory, "-f", "raw")
        with open(directory + "/disk", "r+b", buffering=0) as file:
            file.write(b"signal%02d" % signal_number)
        mounted.finish(signal_number)
        wait_until_empty(directory)
        with open(image, "rb") as file:
            assert file.read(8) == b"signal%02d" % signal_number


def read_only_refuses_writers(image, directory):
    make_disk(image)
    mounted = Mounted(image, directory, "-r", "-f", "raw")
    try:
        with open(directory + "/disk", "r+b", buffering=0) as file:
            file.write(b"x")
        raise AssertionError("a write went through")
    except OSError:
        pass
    assert mounted.finish("unmount") == 0


CASES = {f.__name__: f for f in (shows_disk_and_partitions, ends_cleanly_on_a_signal, read_only_refuses_writers)}


def main():
    if not fuse_works():
        return SKIPPED
    if sys.argv[1] == "ends_cleanly_on_a_signal" and not os.path.exists("/etc/mtab"):
        print("there is no /etc/mtab: fusermount3 unmounts nothing for a process that was killed")
        return SKIPPED
    directory = tempfile.mkdtemp(prefix="vmm-mount-")
    os.mkdir(directory + "/mnt")
    try:
        CASES[sys.argv[1]](directory + "/image", directory + "/mnt")
    finally:
        subprocess.run(["fusermount3", "-u", directory + "/mnt"], stderr=subprocess.DEVNULL)
        shutil.rmtree(directory)
    return 0


if __name__ == "__main__":
    sys.exit(main())
