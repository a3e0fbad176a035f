#!/usr/bin/env python3
"""vmm-nbd against the NBD programs of others: nbdinfo, nbdcopy, qemu-img, qemu-io and qemu-nbd, in both directions,
in the clear and under TLS (psk and x509). Usage: nbd_strangers.py VMM_NBD. Exits with 77 when a program is absent."""
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

SKIPPED = 77
SIZE = 32 << 20
LIMIT = 60  # seconds for any one program


def run(*command, ok=True):
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    if ok and done.returncode != 0:
        raise AssertionError(f"{command} failed: {done.stdout}{done.stderr}")
    return done


class Server:
    """An NBD server program on a unix socket, ready when the socket accepts."""

    def __init__(self, program, path, *options):
        self.path = path
        self.process = subprocess.Popen([program, "-k", path, *options], stderr=subprocess.PIPE, text=True)
        while not os.path.exists(path):
            if self.process.poll() is not None:
                raise AssertionError(f"{program} {options}: {self.process.stderr.read()}")
            time.sleep(0.01)

    def uri(self, export=""):
        return f"nbd+unix:///{export}?socket={self.path}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=LIMIT)


def make_disk(path):
    data = bytearray(SIZE)
    noise = random.Random(1)
    for at in range(0, SIZE, 4 << 20):
        data[at:at + (1 << 20)] = noise.randbytes(1 << 20)
    with open(path, "wb") as file:
        file.truncate(SIZE)
        for at in range(0, SIZE, 4 << 20):
            file.seek(at)
            file.write(data[at:at + (1 << 20)])


def same_listing(vmm, work):
    with Server(vmm, work + "/l", "-t", "-e", "3", "-f", "raw", "-x", "disk", "-D", "words", work + "/disk"):
        theirs = run("qemu-nbd", "-L", "-k", work + "/l").stdout
        ours = run(vmm, "-L", "-k", work + "/l").stdout
        assert ours == theirs and "description: words" in ours, (ours, theirs)
        info = run("nbdinfo", f"nbd+unix:///disk?socket={work}/l").stdout
        assert "export-size: 33554432" in info and "structured packets" in info, info
        wrong = run("nbdinfo", f"nbd+unix:///no?socket={work}/l", ok=False)
        assert wrong.returncode != 0, wrong
    with Server("qemu-nbd", work + "/q", "-t", "-f", "raw", "-x", "disk", "-r", work + "/disk"):
        theirs = run("qemu-nbd", "-L", "-k", work + "/q").stdout
        ours = run(vmm, "-L", "-k", work + "/q").stdout
        assert ours == theirs, (ours, theirs)


def copies(vmm, work):
    with Server(vmm, work + "/c", "-t", "-e", "0", "-f", "raw", work + "/disk") as server:
        run("nbdcopy", server.uri(), work + "/out")
        assert run("cmp", work + "/disk", work + "/out", ok=False).returncode == 0
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", server.uri(), work + "/disk")
        holes = run("nbdinfo", "--map", server.uri()).stdout
        assert "hole,zero" in holes and "data" in holes, holes
        threads = [threading.Thread(target=run, args=("nbdcopy", server.uri(), f"{work}/out{i}")) for i in range(4)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
        for i in range(4):
            assert run("cmp", work + "/disk", f"{work}/out{i}", ok=False).returncode == 0
    with open(work + "/target", "wb") as target:
        target.truncate(SIZE)
    with Server(vmm, work + "/w", "-t", "-e", "0", "-f", "raw", "--discard=unmap", work + "/target") as server:
        run("nbdcopy", "--flush", work + "/disk", server.uri())
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", work + "/disk", work + "/target")


def requests(vmm, work):
    with open(work + "/io", "wb") as disk:
        disk.truncate(SIZE)
    with Server(vmm, work + "/i", "-t", "-e", "2", "-f", "raw", "--discard=unmap", work + "/io") as server:
        done = run("qemu-io", "-f", "raw", "-c", "write -P 7 1M 2M", "-c", "write -z -u 1M 64k", "-c", "discard 2M 64k",
                   "-c", "write -f -P 3 100 1000", "-c", "flush", "-c", "read -P 0 1M 64k", "-c", "read -P 3 100 1000",
                   "-c", "read -P 7 1114112 900k", server.uri())
        assert "failed" not in done.stdout + done.stderr, done
    check = run("qemu-io", "-f", "raw", "-c", "read -P 7 1114112 900k", "-c", "read -P 3 100 1000", work + "/io")
    assert "failed" not in check.stdout
    with Server(vmm, work + "/r", "-t", "-r", "-f", "raw", work + "/io") as server:
        refused = run("qemu-io", "-f", "raw", "-c", "write 0 512", server.uri(), ok=False)
        assert refused.returncode != 0


def as_client_of_qemu(vmm, work):
    """Our client driver: vmm-nbd passes on an export of qemu-nbd."""
    with open(work + "/far", "wb") as disk:
        disk.truncate(SIZE)
    with Server("qemu-nbd", work + "/f", "-t", "-e", "4", "-f", "raw", "--discard=unmap", "-x", "far", work + "/far") as far, \
            Server(vmm, work + "/p", "-t", "-e", "4", "-f", "raw", "--discard=unmap", far.uri("far")) as proxy:
        run("nbdcopy", work + "/disk", proxy.uri())
        run("qemu-img", "compare", "-f", "raw", "-F", "raw", proxy.uri(), work + "/disk")
        done = run("qemu-io", "-f", "raw", "-c", "write -P 9 5M 1M", "-c", "write -z 5M 64k", "-c", "read -P 0 5M 64k",
                   "-c", "read -P 9 5308416 100k", "-c", "discard 6M 1M", "-c", "flush", proxy.uri())
        assert "failed" not in done.stdout + done.stderr, done
        theirs = run("nbdinfo", "--map", far.uri("far")).stdout
        ours = run("nbdinfo", "--map", proxy.uri()).stdout
        assert theirs == ours, (theirs, ours)


def tls_psk(vmm, work):
    if not shutil.which("psktool"):
        return "psktool is absent"
    os.mkdir(work + "/psk")
    run("psktool", "-u", "rich", "-p", work + "/psk/keys.psk")
    server_object = f"tls-creds-psk,id=t,endpoint=server,dir={work}/psk"
    client_object = f"tls-creds-psk,id=t,endpoint=client,username=rich,dir={work}/psk"
    for program, client in ((vmm, "qemu-nbd"), ("qemu-nbd", vmm), (vmm, vmm)):
        with Server(program, work + "/s", "-t", "-e", "0", "-f", "raw", "-x", "t", "--object", server_object,
                    "--tls-creds", "t", work + "/disk"):
            listing = run(client, "-L", "-k", work + "/s", "--object", client_object, "--tls-creds", "t").stdout
            assert "export: 't'" in listing, listing
            clear = run(client, "-L", "-k", work + "/s", ok=False)
            assert clear.returncode != 0 and "TLS" in clear.stderr, clear
            copied = run("nbdcopy", f"nbds+unix://rich@/t?socket={work}/s&tls-psk-file={work}/psk/keys.psk", work + "/o")
            assert run("cmp", work + "/disk", work + "/o", ok=False).returncode == 0, copied
        os.path.exists(work + "/s") and os.unlink(work + "/s")
    return None


CERTIFICATES = {
    "ca": "cn = test CA\nca\ncert_signing_key\n",
    "server": "cn = localhost\ndns_name = localhost\ntls_www_server\nencryption_key\nsigning_key\n",
    "client": "cn = client\ntls_www_client\nencryption_key\nsigning_key\n",
}


def tls_x509(vmm, work):
    if not shutil.which("certtool"):
        return "certtool is absent"
    pki = work + "/pki"
    os.mkdir(pki)
    for name, template in CERTIFICATES.items():
        with open(f"{pki}/{name}.tmpl", "w") as file:
            file.write(template + "expiration_days = 3650\n")
        run("certtool", "--generate-privkey", "--key-type", "ecdsa", "--outfile", f"{pki}/{name}-key.pem")
        made = ["certtool", "--load-privkey", f"{pki}/{name}-key.pem", "--template", f"{pki}/{name}.tmpl", "--outfile",
                f"{pki}/{name}-cert.pem"]
        if name == "ca":
            run(*made, "--generate-self-signed")
        else:
            run(*made, "--generate-certificate", "--load-ca-certificate", f"{pki}/ca-cert.pem", "--load-ca-privkey",
                f"{pki}/ca-key.pem")
    for program, client in ((vmm, "qemu-nbd"), ("qemu-nbd", vmm)):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = str(probe.getsockname()[1])
        process = subprocess.Popen([program, "-b", "127.0.0.1", "-p", port, "-t", "-e", "0", "-f", "raw", "-x", "t", "--object",
                                    f"tls-creds-x509,id=t,endpoint=server,verify-peer=on,dir={pki}", "--tls-creds", "t",
                                    work + "/disk"], stderr=subprocess.DEVNULL)
        try:
            for _ in range(1000):
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                        break
                time.sleep(0.01)
            client_object = f"tls-creds-x509,id=t,endpoint=client,verify-peer=on,dir={pki}"
            listing = run(client, "-L", "-b", "localhost", "-p", port, "--object", client_object, "--tls-creds", "t").stdout
            assert "export: 't'" in listing, listing
            # The certificate names localhost: another name for the same server is not believed, unless told so.
            by_address = (client, "-L", "-b", "127.0.0.1", "-p", port, "--object", client_object, "--tls-creds", "t")
            assert run(*by_address, ok=False).returncode == 1, "a server with another name was believed"
            assert "export: 't'" in run(*by_address, "--tls-hostname", "localhost").stdout
            image = f"driver=nbd,host=localhost,port={port},export=t,tls-creds=t"
            tool = "qemu-img" if client == "qemu-nbd" else os.path.join(os.path.dirname(vmm), "vmm-img")
            same = run(tool, "compare", "--object", client_object, "--image-opts", image,
                       f"driver=raw,file.filename={work}/disk,file.locking=off", ok=False)
            assert same.returncode == 0, same
        finally:
            process.terminate()
            process.wait(timeout=LIMIT)
    return None


def life_of_the_process(vmm, work):
    # Without -t the server ends with its last client.
    with Server(vmm, work + "/e", "-f", "raw", work + "/disk") as server:
        run("nbdinfo", "--size", server.uri())
        assert server.process.wait(timeout=LIMIT) == 0
    # --fork returns when clients can connect; the pid file names the server.
    run(vmm, "--fork", "--pid-file", work + "/pid", "-t", "-k", work + "/d", "-f", "raw", work + "/disk")
    run("nbdinfo", "--size", f"nbd+unix:///?socket={work}/d")
    os.kill(int(open(work + "/pid").read()), signal.SIGTERM)
    while os.path.exists(work + "/pid"):
        time.sleep(0.01)
    broken = run(vmm, "--fork", "-k", work + "/d", work + "/absent", ok=False)
    assert broken.returncode == 1 and "No such file" in broken.stderr, broken
    # The kernel's module is missing: said with a hint.
    if not os.path.exists("/dev/nbd0"):
        for option in (["-c", "/dev/nbd0", "-f", "raw", work + "/disk"], ["-d", "/dev/nbd0"]):
            absent = run(vmm, *option, ok=False)
            assert absent.returncode == 1 and "modprobe nbd" in absent.stderr, absent
    # An image somebody writes to is refused, and the holder named.
    run("qemu-img", "create", "-f", "qcow2", work + "/locked", "1M")
    with Server("qemu-nbd", work + "/k", "-t", "-f", "qcow2", work + "/locked") as holder:
        refused = run(vmm, "-k", work + "/k2", "-f", "qcow2", work + "/locked", ok=False)
        assert refused.returncode == 1 and str(holder.process.pid) in refused.stderr, refused.stderr


def windows(vmm, work):
    """-o, -P and -s."""
    run("qemu-img", "create", "-f", "qcow2", work + "/bits", "16M")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 64k", work + "/bits")
    with Server(vmm, work + "/b", "-t", "-s", "-f", "qcow2", work + "/bits") as server:
        done = run("qemu-io", "-f", "raw", "-c", "read -P 5 1M 64k", "-c", "write -P 6 1M 4k", "-c", "read -P 6 1M 4k",
                   server.uri())
        assert "failed" not in done.stdout + done.stderr, done
    assert "failed" not in run("qemu-io", "-f", "qcow2", "-c", "read -P 5 1M 64k", work + "/bits").stdout
    if shutil.which("sfdisk"):
        with open(work + "/parts", "wb") as disk:
            disk.truncate(SIZE)
        subprocess.run(["sfdisk", "-q", work + "/parts"], input="2048,4096,83\n8192,8192,83\n", text=True, check=True,
                       timeout=LIMIT)
        with Server(vmm, work + "/n", "-P", "2", "-f", "raw", work + "/parts") as server:
            assert run("nbdinfo", "--size", server.uri()).stdout.strip() == str(8192 * 512)
    with Server(vmm, work + "/o", "-o", "1048576", "-f", "raw", work + "/disk") as server:
        assert run("nbdinfo", "--size", server.uri()).stdout.strip() == str(SIZE - (1 << 20))
    # An odd window ends with a whole sector, as qemu-nbd's: what is not in the image is zero and stays so.
    with Server(vmm, work + "/w", "-t", "-o", "1000", "-f", "raw", work + "/disk") as server:
        size = (SIZE - 1000 + 511) // 512 * 512
        assert run("nbdinfo", "--size", server.uri()).stdout.strip() == str(size)
        stored = SIZE - 1000 - (size - 512)
        done = run("qemu-io", "-f", "raw", "-c", f"read -P 0 {size - 512 + stored} {512 - stored}", "-c", f"write -P 7 {size - 512} {stored}",
                   "-c", f"read -P 7 {size - 512} {stored}", "-c", f"write -z {size - 512} 512", "-c", f"read -P 0 {size - 512} 512", server.uri())
        assert "failed" not in done.stdout + done.stderr, done
        refused = run("qemu-io", "-f", "raw", "-c", f"write -P 7 {size - 512} 512", server.uri(), ok=False)
        assert "No space left" in refused.stdout + refused.stderr, refused


def bitmaps(vmm, work):
    run("qemu-img", "create", "-f", "qcow2", work + "/bits", "16M")
    run("qemu-img", "bitmap", "--add", work + "/bits", "changed")
    run("qemu-io", "-f", "qcow2", "-c", "write -P 5 1M 64k", work + "/bits")
    refused = run(vmm, "-k", work + "/b", "-f", "qcow2", "-B", "no such bitmap", work + "/bits", ok=False)
    assert refused.returncode == 1 and "Bitmap 'no such bitmap' is not found" in refused.stderr, refused
    with Server(vmm, work + "/b", "-t", "-r", "-A", "-f", "qcow2", "-B", "changed", work + "/bits") as server:
        dirty = run("nbdinfo", "--map=qemu:dirty-bitmap:changed", server.uri()).stdout
        assert "dirty" in dirty, dirty
    return None


def main():
    vmm = sys.argv[1]
    absent = [name for name in ("nbdinfo", "nbdcopy", "qemu-nbd", "qemu-img", "qemu-io") if not shutil.which(name)]
    if absent:
        print("skipped: not installed:", " ".join(absent))
        return SKIPPED
    chosen, all_skipped = sys.argv[2:], True
    for test in (same_listing, copies, requests, as_client_of_qemu, tls_psk, tls_x509, life_of_the_process, windows, bitmaps):
        if chosen and test.__name__ not in chosen:
            continue
        with tempfile.TemporaryDirectory() as work:
            make_disk(work + "/disk")
            skipped = test(vmm, work)
            all_skipped = all_skipped and bool(skipped)
            print(f"{test.__name__}: {'skipped, ' + skipped if skipped else 'ok'}", flush=True)
    return SKIPPED if all_skipped else 0


if __name__ == "__main__":
    sys.exit(main())
