#!/usr/bin/env python3
"""Images made by hand to hurt the tools: each ends in a message that names what is wrong with it, within bounds of time
and memory, and what was found corrupt is not made worse.

usage: img_hostile.py FORMAT      (VMM_BIN_DIR: where vmm-img and vmm-io are)
"""
import os
import re
import resource
import shutil
import struct
import subprocess
import sys
import tempfile

BIN = os.environ.get("VMM_BIN_DIR", "")
MEMORY = 1 << 30  # of address space: a table that is taken at its word would not fit
SECONDS = 60


def be32(n):
    return struct.pack(">I", n)


def be64(n):
    return struct.pack(">Q", n)


def le32(n):
    return struct.pack("<I", n)


def le64(n):
    return struct.pack("<Q", n)


def number(form, data, offset):
    return struct.unpack_from(form, data, offset)[0]


def patched(*changes):
    """Changes are (offset, bytes); an offset may be a function of the image."""
    def change(image):
        image = bytearray(image)
        for offset, data in changes:
            at = offset(image) if callable(offset) else offset
            image[at:at + len(data)] = data
        return image
    return change


def cut(size):
    return lambda image: image[:size]


CREATE = "vmm-img create -q -f %s %s image %s"
FILLED = "; vmm-io -f %s -c 'write -q -P 5 0 64k' -c 'write -q -P 6 1M 64k' image"
READ, WRITE = "vmm-io -r -f %s -c 'read 0 512' image", "vmm-io -f %s -c 'write 0 512' image"
INFO = "vmm-img info -f %s image"


class Format:
    """`make`: lines that make `image`; cases: (name, change, line, pattern the output must hold)."""

    def __init__(self, name, make, cases):
        self.name, self.make, self.cases = name, make, cases


FORMATS = {}


def add(name, make, cases):
    FORMATS[name] = Format(name, make, [(case, change, line % name if "%s" in line else line, text) for case, change, line, text in cases])


def qcow_l1(image):
    return number(">Q", image, 40)


def qcow_l2_entry(image):
    return number(">Q", image, qcow_l1(image))


add("qcow", CREATE % ("qcow", "", "8M") + FILLED % "qcow", [
    ("size of 2^63", patched((24, be64(1 << 63))), INFO, "size"),
    ("no size", patched((24, be64(0))), INFO, "[Ss]ize"),
    ("cluster bits", patched((32, b"\x3f")), INFO, "[Cc]luster"),
    ("L2 bits", patched((33, b"\x3f")), INFO, "l2_bits"),
    ("L1 beyond the end", patched((40, be64(1 << 62))), INFO, "L1"),
    ("L1 far too large", patched((24, be64(1 << 60))), INFO, "[Ss]ize|L1"),
    ("L2 beyond the end", patched((qcow_l1, be64(1 << 40))), READ, "L2"),
    ("L2 in the header", patched((qcow_l1, be64(0x20))), WRITE, "L2"),
    ("L2 on the L1 table", patched((qcow_l1, be64(48))), WRITE, "L2|L1"),
    ("cluster in the header", patched((qcow_l2_entry, be64(0x10))), WRITE, "[Cc]luster"),
    ("cluster beyond the end", patched((qcow_l2_entry, be64(1 << 45))), READ, "beyond|end|[Cc]luster"),
    ("compressed cluster beyond the end", patched((qcow_l2_entry, be64(1 << 63 | 1 << 51 | 1 << 40))), READ, "[Cc]ompressed|[Cc]luster"),
    ("encryption method", patched((36, be32(9))), INFO, "encryption|crypt"),
    ("backing name beyond the end", patched((8, be64(1 << 40) + be32(100))), INFO, "[Bb]acking"),
    ("backing name too long", patched((8, be64(48) + be32(1 << 31))), INFO, "[Bb]acking"),
    ("header cut off", cut(20), INFO, "header|qcow"),
    ("tables cut off", cut(48), READ, "L1|end"),
])

add("vdi", CREATE % ("vdi", "", "8M") + FILLED % "vdi", [
    ("size of 2^63", patched((0x170, le64(1 << 63))), INFO, "disk_size|[Ss]ize"),
    ("size beyond the map", patched((0x170, le64(1 << 40))), INFO, "disk_size|[Ss]ize|blocks"),
    ("block size", patched((0x178, le32(12345))), INFO, "block.?size"),
    ("blocks in image", patched((0x180, le32(0xffffffff))), INFO, "blocks|[Ss]ize"),
    ("map in the header", patched((0x154, le32(8))), INFO, "map|bmap"),
    ("map beyond the end", patched((0x154, le32(0xfffffe00))), INFO, "map|bmap|end"),
    ("map across the data", patched((0x158, le32(512))), INFO, "data|map"),
    ("sector size", patched((0x168, le32(4096))), INFO, "sector"),
    ("version", patched((0x44, le32(9 << 16))), INFO, "[Vv]ersion"),
    ("block far beyond the end", patched((512, le32(0x7ffffff0))), READ, "block"),
    ("two blocks at one place", patched((516, le32(0))), "vmm-img check -f vdi image", "block"),
    ("data cut off", cut(4096), READ, "block|end"),
    ("header cut off", cut(100), INFO, "header|VDI|vdi"),
])


def vpc_bat(image):
    return number(">Q", image, 512 + 16)


def vpc_header(*changes):
    """Changes to the copy of the footer at 0 and the dynamic header at 512, with their checksums put right and the footer
    behind the data made the same."""
    def change(image):
        image = patched(*changes)(image)
        for at, length, field in ((0, 512, 64), (512, 1024, 36)):
            image[at + field:at + field + 4] = bytes(4)
            image[at + field:at + field + 4] = be32(~sum(image[at:at + length]) & 0xffffffff)
        image[-512:] = image[:512]
        return image
    return change


add("vpc", CREATE % ("vpc", "", "8M") + FILLED % "vpc", [
    ("size of 2^63", vpc_header((48, be64(1 << 63)), (56, bytes(4))), INFO, "size"),
    ("disk type", vpc_header((60, be32(9))), INFO, "disk type"),
    ("dynamic header beyond the end", vpc_header((16, be64(1 << 62))), INFO, "data offset|dynamic header"),
    ("dynamic header on the footer", vpc_header((16, be64(0))), INFO, "data offset|dynamic header"),
    ("block size", vpc_header((512 + 32, be32(0))), INFO, "block size"),
    ("block size of gigabytes", vpc_header((512 + 32, be32(1 << 31))), INFO, "block size"),
    ("entries of the table", vpc_header((512 + 28, be32(0xffffffff))), INFO, "max table entries"),
    ("table beyond the end", vpc_header((512 + 16, be64(1 << 62))), INFO, "table"),
    ("table on the header", vpc_header((512 + 16, be64(512))), WRITE, "table"),
    ("block in the header", patched((vpc_bat, be32(0))), WRITE, "would lie on the dynamic header"),
    ("block on its own table", patched((vpc_bat, be32(2))), WRITE, "would lie on the block table"),
    ("block beyond the end", patched((vpc_bat, be32(0x7fffffff))), READ, "block|end"),
    ("data cut off", cut(4096), READ, "block|end|footer"),
    ("header cut off", cut(600), INFO, "header|footer|vpc|VHD"),
])


def vhdx_region(which):
    def find(image):
        for i in range(2):
            at = (192 << 10) + 16 + 32 * i
            bat = image[at:at + 4] == bytes.fromhex("6677c22d")
            if bat == (which == "bat"):
                return number("<Q", image, at + 16)
        raise ValueError(which)
    return find


add("vhdx", CREATE % ("vhdx", "-o block_size=1M", "8M") + FILLED % "vhdx", [
    ("region table", patched((192 << 10, b"xxxx"), (256 << 10, b"xxxx")), INFO, "region"),
    ("both headers", patched((64 << 10, b"xxxx"), (128 << 10, b"xxxx")), INFO, "header"),
    ("metadata table", patched((vhdx_region("metadata"), b"xxxxxxxx")), INFO, "metadata"),
    ("block size", patched((lambda i: vhdx_region("metadata")(i) + 65536, le32(12345))), INFO, "BlockSize"),
    ("size of 2^63", patched((lambda i: vhdx_region("metadata")(i) + 65544, le64(1 << 63))), INFO, "VirtualDiskSize"),
    ("size beyond the BAT", patched((lambda i: vhdx_region("metadata")(i) + 65544, le64(60 << 40))), INFO, "BAT"),
    ("block on the header", patched((vhdx_region("bat"), le64(6))), WRITE, "[Bb]lock"),
    ("block on the BAT", lambda image: patched((vhdx_region("bat"), le64(vhdx_region("bat")(image) | 6)))(image), WRITE, "would lie on the BAT"),
    ("two blocks at one place", lambda image: patched((vhdx_region("bat"), image[vhdx_region("bat")(image) + 8:][:8]))(image), "vmm-img check -f vhdx image", "[Bb]lock"),
    ("block beyond the end", patched((vhdx_region("bat"), le64(1 << 50 | 6))), READ, "[Bb]lock"),
    ("block state", patched((vhdx_region("bat"), le64(1 << 22 | 7))), READ, "[Bb]lock|state"),
    ("data cut off", cut(3 << 20), READ, "[Bb]lock|end|region|BAT"),
    ("header cut off", cut(70000), INFO, "header|region"),
])


def vmdk_gd(image):
    return number("<Q", image, 56) * 512


def vmdk_gt(image):
    return number("<I", image, vmdk_gd(image)) * 512


add("vmdk", CREATE % ("vmdk", "", "8M") + FILLED % "vmdk", [
    ("capacity of 2^63", patched((12, le64(1 << 63))), INFO, "capacity"),
    ("grain size", patched((20, le64(3))), INFO, "grain"),
    ("grain size of gigabytes", patched((20, le64(1 << 40))), INFO, "grain"),
    ("entries of a grain table", patched((44, le32(0xffffffff))), INFO, "L2|grain table|numGTEs"),
    ("no entries in a grain table", patched((44, le32(0))), INFO, "L2|grain table|numGTEs"),
    ("grain directory beyond the end", patched((56, le64(1 << 50)), (48, le64(1 << 50))), INFO, "directory|end"),
    ("grain table beyond the end", patched((vmdk_gd, le32(0x7fffffff))), READ, "table"),
    ("grain table in the header", patched((vmdk_gd, le32(0))), WRITE, "table"),
    ("grain table on the descriptor", patched((vmdk_gd, le32(1))), WRITE, "table"),
    ("grain beyond the end", patched((vmdk_gt, le32(0x7fffffff))), READ, "grain"),
    ("grain on the directory", lambda image: patched((vmdk_gt, le32(vmdk_gd(image) // 512)))(image), WRITE, "grain"),
    ("two grains at one place", lambda image: patched((vmdk_gt, image[vmdk_gt(image) + 4 * 16:][:4]))(image), "vmm-img check -f vmdk image", "cluster of sector"),
    ("descriptor beyond the end", patched((28, le64(1 << 50))), INFO, "descriptor"),
    ("descriptor of gigabytes", patched((36, le64(1 << 50))), INFO, "descriptor"),
    ("no descriptor", lambda image: image[:512] + bytes(10240) + image[512 + 10240:], INFO, "descriptor|[Vv]MDK|extent"),
    ("data cut off", cut(65536), READ, "grain|end|table"),
    ("header cut off", cut(40), INFO, "header|VMDK|vmdk|magic"),
])

add("vmdk-descriptor", "vmm-img create -q -f vmdk -o subformat=twoGbMaxExtentFlat image.vmdk 8M; mv image.vmdk image", [
    ("extent of 2^63 sectors", lambda i: i.replace(b"RW 16384", b"RW 9223372036854775808"), "vmm-img info -f vmdk image", "[Ee]xtent"),
    ("extent that is not there", lambda i: i.replace(b"image-f001", b"nothing"), "vmm-img info -f vmdk image", "nothing"),
    ("extent that is the descriptor", lambda i: re.sub(rb'RW 16384 \w+ "[^"]*" 0', b'RW 16384 SPARSE "image"', i), "vmm-img info -f vmdk image", "[Ee]xtent|image"),
    ("extent shorter than it says", lambda i: i.replace(b"RW 16384", b"RW 99999999"), "vmm-io -r -f vmdk -c 'read 20G 512' image", "[Ee]xtent|end|short"),
    ("extent of an unknown kind", lambda i: i.replace(b" FLAT ", b" BLOB "), "vmm-img info -f vmdk image", "[Ee]xtent"),
    ("no extents", lambda i: re.sub(rb"RW .*\n", b"", i), "vmm-img info -f vmdk image", "[Ee]xtent"),
    ("a thousand extents", lambda i: i.replace(b"# The Disk", b'RW 1 ZERO\n' * 100000 + b"# The Disk"), "vmm-img info -f vmdk image", "[Ee]xtent|descriptor"),
])

add("vmdk-stream", "vmm-img create -q -f raw r 1M; vmm-io -f raw -c 'write -q -P 7 64k 64k' r; vmm-img convert -f raw -O vmdk -o subformat=streamOptimized r image", [
    ("stream cut off", lambda i: i[:65536], "vmm-io -r -f vmdk -c 'read 64k 64k' image", "grain|footer"),
    ("damaged grain", lambda i: i[:65536 + 20] + b"\xff" * 16 + i[65536 + 36:], "vmm-io -r -f vmdk -c 'read 64k 64k' image", "grain|[Cc]ompress"),
    ("grain of gigabytes", lambda i: i[:65536 + 8] + le32(0xfffffff0) + i[65536 + 12:], "vmm-io -r -f vmdk -c 'read 64k 64k' image", "grain|[Cc]ompress"),
])

add("cloop", "vmm-img create -q -f raw r 256k; create_compressed_fs -q -B 65536 r image", [
    ("block size", patched((128, be32(3))), INFO, "block_size|block size"),
    ("block size of gigabytes", patched((128, be32(0x80000000))), INFO, "block_size|block size"),
    ("number of blocks", patched((132, be32(0xffffffff))), INFO, "n_blocks|blocks"),
    ("offsets that go back", patched((136 + 8, be64(4))), READ, "offset"),
    ("offset beyond the end", patched((136 + 8, be64(1 << 62))), READ, "offset|block"),
    ("offsets cut off", cut(150), INFO, "offset"),
    ("data cut off", cut(190), READ, "block|offset|end"),
    ("header cut off", cut(130), INFO, "cloop|header"),
])

# Version 2 as QEMU wrote it: the size at 1040, the sector size at 1048, the bitmap at 1056, 1 MiB of data at 1536.
add("cow", "(printf 'OOOM\\0\\0\\0\\2'; head -c 1032 /dev/zero; printf '\\0\\0\\0\\0\\0\\20\\0\\0\\0\\0\\2\\0\\0\\0\\0\\0\\377'; "
    "head -c 1049055 /dev/zero) > image; vmm-io -r -f cow -c 'read -P 0 0 1M' image", [
    ("size of 2^63", patched((1040, be64(1 << 63))), INFO, "size"),
    ("size beyond the bitmap", patched((1040, be64(1 << 50))), INFO, "size|bitmap"),
    ("no sector size", patched((1048, be32(0))), INFO, "sectorsize"),
    ("sector size", patched((1048, be32(0x80000000))), INFO, "sectorsize"),
    ("version", patched((4, be32(9))), INFO, "not in cow format"),
    ("bitmap cut off", cut(1100), INFO, "bitmap|end|cut off"),
    ("data cut off", cut(1600), READ % "cow" + "; " + READ.replace("0 512", "512 512") % "cow", "end|failed"),
    ("header cut off", cut(1000), INFO, "header|cut off"),
    ("it backs itself", patched((8, b"image\0")), READ, "loop"),
])

LUKS_OPTIONS = "--object secret,id=s,data=abc"
LUKS_OPEN = "vmm-io %s --image-opts driver=luks,file.filename=image,key-secret=s -c 'read 0 512'" % LUKS_OPTIONS
add("luks", "vmm-img create -q -f luks %s -o key-secret=s,iter-time=10 image 1M" % LUKS_OPTIONS, [
    ("version", patched((6, b"\0\7")), INFO, "version 7"),
    ("cipher name", patched((8, b"rot13\0")), INFO, "rot13"),
    ("cipher mode", patched((40, b"ebc-plain\0")), INFO, "ebc"),
    ("hash", patched((72, b"crc32\0")), INFO, "crc32"),
    ("cipher name without an end", patched((8, b"a" * 32)), INFO, "cipher name"),
    ("payload beyond the end", patched((104, be32(0xffffffff))), INFO, "payload"),
    ("key bytes", patched((108, be32(0x7fffffff))), INFO, "key length"),
    ("no iterations", patched((164, be32(0))), INFO, "iterations"),
    ("iterations for years", patched((164, be32(0xffffffff))), INFO, "iterations"),
    ("slot's state", patched((208, be32(7))), INFO, "slot 0"),
    ("slot's iterations", patched((212, be32(0xffffffff))), INFO, "slot 0"),
    ("slot's stripes", patched((252, be32(0xffffffff))), INFO, "slot 0"),
    ("slot's key in the header", patched((248, be32(0))), INFO, "slot 0"),
    ("slot's key beyond the payload", patched((248, be32(0x7fffffff))), LUKS_OPEN, "slot 0"),
    ("two slots at one place", lambda i: patched((256 + 40, bytes(i[248:256])))(i), INFO, "slot"),
    ("payload on the slots", patched((104, be32(8))), LUKS_OPEN, "slot|payload"),
    ("header cut off", cut(300), INFO, "LUKS"),
    ("key material cut off", cut(4096 + 512), LUKS_OPEN, "payload|slot"),
])

add("chains", "true", [
    ("qcow2 that backs itself", None, "vmm-img create -q -f qcow2 -u -b a -F qcow2 b 1M; mv b a; vmm-io -c 'read 0 512' a", "loop"),
    ("qcow that backs itself", None, "vmm-img create -q -f qcow -u -b a -F qcow b 1M; mv b a; vmm-io -f qcow -c 'read 0 512' a", "loop"),
    ("vmdk that backs itself", None, "vmm-img create -q -f vmdk a 1M; vmm-img create -q -f vmdk -b a -F vmdk b; mv b a; vmm-io -f vmdk -c 'read 0 512' a", "loop"),
    ("two that back each other", None, "vmm-img create -q -f qcow2 -u -b b -F qcow2 a 1M; vmm-img create -q -f qcow2 -u -b a -F qcow2 b 1M;"
     "vmm-img info --backing-chain a; vmm-io -c 'read 0 512' a", "loop|deep|chain"),
    ("a loop by another name", None, "vmm-img create -q -f qcow2 -u -b ./l -F qcow2 a 1M; ln -s a l; vmm-img convert -O raw a x", "loop|deep|chain"),
    ("a chain of hundreds", None, "vmm-img create -q -f qcow2 -u -b a1 -F qcow2 a0 1M;"
     "for i in $(seq 1 300); do cp a0 a$i; vmm-img rebase -q -u -b a$((i+1)) -F qcow2 a$i; done; vmm-io -c 'read 0 512' a0", "loop|deep|chain"),
])


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))


def run(line, directory):
    environment = dict(os.environ, PATH=BIN + ":" + os.environ["PATH"], LC_ALL="C")
    return subprocess.run(["bash", "-c", line], cwd=directory, env=environment, stdin=subprocess.DEVNULL, timeout=SECONDS,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", preexec_fn=limits)


def check(form):
    """Returns how many cases went wrong."""
    bad = 0
    for name, change, line, pattern in form.cases:
        directory = tempfile.mkdtemp(prefix="vmm-hostile-")
        try:
            made = run(form.make, directory)
            if made.returncode:
                print("%s: %s" % (form.make, made.stdout))
                return 1
            path = os.path.join(directory, "image")
            if change:
                with open(path, "rb") as file:
                    image = bytes(change(file.read()))
                with open(path, "wb") as file:
                    file.write(image)
            done = run(line, directory)
            errors = [text for text in done.stdout.splitlines() if not re.match(r"(read|wrote) \d+/|\d.* ops;", text)]
            if done.returncode < 0 or done.returncode > 128 or not re.search(pattern, "\n".join(errors)):
                bad += 1
                print("%s: %s\n  $ %s\n  status %d, expected /%s/: %s" % (form.name, name, line, done.returncode, pattern, done.stdout))
            elif os.environ.get("VERBOSE"):
                print("%s: %s: %s" % (form.name, name, " / ".join(errors)))
        except subprocess.TimeoutExpired:
            bad += 1
            print("%s: %s: nothing after %d seconds" % (form.name, name, SECONDS))
        finally:
            shutil.rmtree(directory)
    print("%s: %d cases, %d went wrong" % (form.name, len(form.cases), bad))
    return bad


def main():
    if len(sys.argv) != 2 or sys.argv[1] not in FORMATS:
        sys.exit("usage: img_hostile.py %s" % "|".join(FORMATS))
    if sys.argv[1] == "cloop" and not shutil.which("create_compressed_fs"):
        print("create_compressed_fs is not installed")
        return 77
    return 1 if check(FORMATS[sys.argv[1]]) else 0


if __name__ == "__main__":
    sys.exit(main())
