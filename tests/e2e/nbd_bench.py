#!/usr/bin/env python3
"""vmm-nbd beside qemu-nbd in the same run, through unix sockets, each with its own copy of the same raw file: nbdcopy
of the whole, 1 MiB reads in order, 4 KiB reads and writes far apart at depth 32. Seconds, best of three, and
qemu-nbd's time over ours. Usage: nbd_bench.py VMM_NBD [MIB]"""
import os
import re
import subprocess
import sys
import tempfile
import time

STRIDE = 9449472  # 4 KiB times a prime: no two neighbours, all over the file


def qemu_bench(uri, *options):
    out = subprocess.run(["qemu-img", "bench", "-f", "raw", *options, uri], capture_output=True, text=True, check=True)
    return float(re.search(r"completed in ([0-9.]+) seconds", out.stdout).group(1))


def nbdcopy(uri):
    start = time.monotonic()
    subprocess.run(["nbdcopy", "--no-extents", uri, "null:"], check=True)
    return time.monotonic() - start


LOADS = {
    "nbdcopy": nbdcopy,
    "read 1M, depth 8": lambda uri: qemu_bench(uri, "-c", "500", "-d", "8", "-s", "1M"),
    "read 4K, depth 32": lambda uri: qemu_bench(uri, "-c", "20000", "-d", "32", "-s", "4096", "-S", str(STRIDE)),
    "write 4K, depth 32": lambda uri: qemu_bench(uri, "-w", "-c", "10000", "-d", "32", "-s", "4096", "-S", str(STRIDE)),
}


def main():
    mib = int(sys.argv[2]) if len(sys.argv) > 2 else 256
    with tempfile.TemporaryDirectory() as work:
        data = os.urandom(1 << 20)
        servers = {}
        for name, program in (("vmm", sys.argv[1]), ("qemu", "qemu-nbd")):
            with open(f"{work}/{name}", "wb") as file:
                for _ in range(mib):
                    file.write(data)
            path = f"{work}/{name}.socket"
            servers[name] = subprocess.Popen([program, "-t", "-e", "0", "-f", "raw", "-k", path, f"{work}/{name}"])
            while not os.path.exists(path):
                time.sleep(0.01)
        try:
            for load, measure in LOADS.items():
                best = {name: min(measure(f"nbd+unix:///?socket={work}/{name}.socket") for _ in range(3)) for name in servers}
                print(f"{load:20} vmm {best['vmm']:.3f} s  qemu {best['qemu']:.3f} s  {best['qemu'] / best['vmm']:.2f}x", flush=True)
        finally:
            for server in servers.values():
                server.terminate()
                server.wait()


if __name__ == "__main__":
    main()
