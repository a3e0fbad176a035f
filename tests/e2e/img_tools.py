#!/usr/bin/env python3
"""vmm-img and vmm-io against Debian's qemu-img and qemu-io: the same command lines in two directories, the same output.

Each scenario is a list of shell lines. They run twice, with PATH leading to our programs under QEMU's names and to
QEMU's own, and must print the same on standard output and standard error and end with the same status, after sizes on
the host, times and dates are evened out. Differences we want are written down beside the line as the text we print.
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

SKIPPED = 77
BIN = os.environ.get("VMM_BIN_DIR", "")

RAW = ["qemu-img create -q a.raw 4M",
       "qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 1M 1M' a.raw"]
QCOW2 = RAW + ["qemu-img convert -f raw -O qcow2 a.raw a.qcow2"]
CHAIN = QCOW2 + ["qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 b.qcow2",
                 "qemu-io -c 'write -P 3 3M 128k' -c 'write -z 1M 64k' b.qcow2"]

# What each program writes the other must read, check and change, for every format, sub-format and option of `create`.
OPTIONS = {
    "raw": ("preallocation=off", "preallocation=falloc", "preallocation=full"), "qcow": ("",), "vdi": ("", "static=on"),
    "vpc": ("force_size=on", "force_size=on,subformat=fixed"),
    "vhdx": ("", "block_size=1M", "block_size=256M", "subformat=fixed", "log_size=4M", "block_state_zero=off"),
    "vmdk": ("", "adapter_type=lsilogic", "adapter_type=buslogic", "adapter_type=legacyESX", "compat6=on", "hwversion=11", "toolsversion=7", "zeroed_grain=on",
             "subformat=monolithicSparse", "subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat"),
    "qcow2": ("", "compat=0.10", "cluster_size=512", "cluster_size=4k", "cluster_size=2M", "lazy_refcounts=on", "refcount_bits=1", "refcount_bits=2", "refcount_bits=4", "refcount_bits=8",
              "refcount_bits=32", "refcount_bits=64", "extended_l2=on", "extended_l2=on,cluster_size=16k", "extended_l2=on,cluster_size=2M", "compression_type=zstd", "preallocation=metadata",
              "preallocation=falloc", "preallocation=full", "extended_l2=on,preallocation=metadata", "data_file=d", "data_file=d,data_file_raw=on", "data_file=d,extended_l2=on")}
REQUESTS = ("-c 'write -P 1 0 64k' -c 'write -P 2 1000 3000' -c 'write -P 3 5M 1234567' -c 'write -z 100k 300k' -c 'write -P 4 200000 1' -c 'write -zu 5500k 100k' -c 'write -P 5 8M 1M' "
            "-c 'writev -P 6 3M 1k 2k 3k'")


def both_ways(form):
    lines = ["qemu-img create -q -f raw m 9M; qemu-io -f raw %s m >/dev/null" % REQUESTS]
    for options in OPTIONS[form]:
        for a, b in (("", "/usr/bin/"), ("/usr/bin/", "")):
            names = dict(a=a, b=b, f=form, o="-o " + options if options else "", w=REQUESTS)
            lines += [line.format(**names) for line in (
                "rm -f x* d; {a}qemu-img create -q -f {f} {o} x 9M && {a}qemu-io -f {f} {w} x >/dev/null; {b}qemu-img compare -f raw -F {f} m x",
                "{b}qemu-img check -q -f {f} x 2>/dev/null; echo $?",
                "{b}qemu-io -f {f} -c 'write -P 9 2M 100k' -c 'write -P 9 6M 100' x >/dev/null && {a}qemu-img check -q -f {f} x 2>/dev/null; "
                "{a}qemu-io -f {f} -c 'read -P 9 2M 100k' -c 'read -P 9 6M 100' -c 'read -P 0 6500k 100' x",
                "{a}qemu-img convert -q -f raw -O {f} {o} m y && {b}qemu-img compare -f raw -F {f} m y; {b}qemu-img convert -f {f} -O raw y z && cmp m z")]
    return lines


# name: (needs the qcow2 format, lines)
SCENARIOS = {
    "bad_command_lines": (False, [
        "qemu-img", "qemu-img zzzzzz", "qemu-img create", "qemu-img create x", "qemu-img create -f nope x 1M",
        "qemu-img create -f raw x 1Z", "qemu-img create x 1M 2M", "qemu-img create -f dmg x 1M",
        "qemu-img create -Z x", "qemu-img create -f", "qemu-img create /nonex/a 1M", "qemu-img -x",
        "qemu-img create -f raw -b a -F raw c", "qemu-img info", "qemu-img info nofile", "qemu-img info a b",
        "qemu-img info --output=foo a", "qemu-img info --foo", "qemu-img check", "qemu-img check -r foo a",
        "qemu-img check nofile", "qemu-img convert", "qemu-img convert a", "qemu-img convert a b c",
        "qemu-img convert -O nope a b", "qemu-img convert -m 17 a b", "qemu-img convert -m x a b",
        "qemu-img convert -S foo a b", "qemu-img convert -r foo a b", "qemu-img convert -t foo a b",
        "qemu-img convert -T foo a b", "qemu-img convert -C -S 4k a b", "qemu-img convert --target-is-zero a b",
        "qemu-img convert -n -o size=3 a b", "qemu-img compare", "qemu-img compare a", "qemu-img compare nofile b",
        "qemu-img compare -T foo a b", "qemu-img map", "qemu-img map --start-offset=foo b",
        "qemu-img map --max-length=foo b", "qemu-img measure", "qemu-img measure --size foo",
        "qemu-img measure a b", "qemu-img measure -f raw --size 1M", "qemu-img measure --size 1M a",
        "qemu-img resize", "qemu-img resize a", "qemu-img resize nofile 1M", "qemu-img resize a 1 2",
        "qemu-img rebase", "qemu-img rebase a", "qemu-img rebase nofile -b x", "qemu-img commit",
        "qemu-img commit nofile", "qemu-img commit -r foo a", "qemu-img amend", "qemu-img amend a",
        "qemu-img amend -o help", "qemu-img amend -f nope -o help", "qemu-img amend -f raw -o help",
        "qemu-img bitmap", "qemu-img bitmap a b", "qemu-img bitmap -g 4k --clear a b",
        "qemu-img bitmap --add -b x a b", "qemu-img snapshot", "qemu-img snapshot -a x -d x a",
        "qemu-img dd", "qemu-img dd if=a", "qemu-img dd if=a of=b foo=1", "qemu-img dd if=a of=b bs=foo",
        "qemu-img dd if=a of=b bs=0", "qemu-img dd if=a of=b count=x", "qemu-img dd if=nofile of=x",
        "qemu-img dd foo", "qemu-img dd -O nope if=a of=b", "qemu-img bench", "qemu-img bench -c x a",
        "qemu-img bench --flush-interval=10 a", "qemu-img bench --flush-interval=10 -d 20 -w a",
        "qemu-img bench --pattern=300 -w a", "qemu-img bench -t foo a", "qemu-img bench -i foo a",
        "qemu-img create --object foo x 1M", "qemu-img create --object secret x 1M", "qemu-img info ''"]),
    "raw": (False, [
        "qemu-img create a.raw 4M", "qemu-img create -f raw odd.raw 1000", "qemu-img info odd.raw",
        "qemu-io -f raw -c 'write -P 1 0 64k' -c 'write -P 2 1M 1M' a.raw", "qemu-img info a.raw",
        "qemu-img info --output=json a.raw", "qemu-img info -f nope a.raw",
        "qemu-img info --image-opts driver=raw,file.filename=a.raw", "qemu-img map a.raw",
        "qemu-img map --output=json a.raw", "qemu-img check a.raw", "qemu-img check --output=json a.raw",
        "qemu-img convert -f raw -O raw a.raw b.raw", "qemu-img compare a.raw b.raw", "qemu-img compare -p a.raw b.raw",
        "qemu-img compare -s a.raw b.raw", "qemu-img convert -p -f raw -O raw a.raw c.raw", "cmp a.raw c.raw",
        "qemu-io -f raw -c 'write -P 9 1M 512' b.raw", "qemu-img compare a.raw b.raw", "qemu-img compare -q a.raw b.raw",
        "qemu-img compare -p a.raw b.raw", "truncate -s 5M c.raw", "qemu-img compare a.raw c.raw",
        "qemu-img compare -s a.raw c.raw", "qemu-io -f raw -c 'write -P 9 4608k 4k' c.raw",
        "qemu-img compare a.raw c.raw", "qemu-img convert -f raw a.raw a.raw x.raw", "qemu-img info x.raw",
        "qemu-img measure --size 1G", "qemu-img measure a.raw", "qemu-img measure --size 1000 -O raw",
        "qemu-img measure -O nope a.raw", "qemu-img measure --output=json a.raw", "qemu-img resize -f raw b.raw +1M",
        "qemu-img resize -f raw b.raw 1M", "qemu-img resize -f raw --shrink b.raw -1M",
        "qemu-img resize -f raw b.raw -100M", "qemu-img resize --shrink -f raw b.raw foo", "qemu-img info b.raw",
        "qemu-img resize a.raw +0", "qemu-img resize -f raw b.raw +", "qemu-img resize --preallocation=foo b.raw +1M",
        "qemu-img resize --preallocation=falloc --shrink -f raw b.raw 1M", "qemu-img snapshot -l a.raw",
        "qemu-img snapshot -a x a.raw", "qemu-img snapshot -d x a.raw", "qemu-img commit -f raw a.raw",
        "qemu-img amend -f raw -o size=1 a.raw", "qemu-img rebase -u -b b.raw -F raw a.raw",
        "qemu-img dd if=a.raw of=dd.raw", "cmp a.raw dd.raw", "qemu-img dd if=a.raw of=dd.raw bs=1M skip=100",
        "qemu-img dd if=a.raw of=dd2.raw bs=64k skip=16 count=40", "qemu-img convert -c -O raw a.raw y",
        "qemu-img bench -c 100 -f raw a.raw", "qemu-img bench -w -c 100 -f raw -d 8 -s 8k -S 64k -o 4096 --pattern=65 b.raw",
        "qemu-img bench --flush-interval=20 -d 20 -w -c 100 -f raw b.raw", "qemu-img create -f raw -o '?'",
        "qemu-img convert -n -O raw a.raw nonex", "qemu-img create -q small.raw 1M",
        "qemu-img convert -n -f raw -O raw a.raw small.raw", "qemu-img convert a.raw /nonex/x",
        "true > empty.raw", "qemu-img map empty.raw", "qemu-img map --output=json empty.raw",
        "qemu-img info 'json:{\"driver\":\"raw\",\"file\":{\"driver\":\"file\",\"filename\":\"a.raw\"}}'"]),
    "io_raw": (False, ["qemu-img create -q f 4M"] + ["qemu-io -f raw -c '%s' f" % c for c in [
        "write 0 512", "read -v 0 48", "read -P 0xcd 0 512", "read -P 1 0 512", "write -P 1 -q 0 4k",
        "read -P 1 -s 512 -l 1k 0 4k", "write -z 0 4k", "write -c 0 4k", "write -u 0 4k", "write -zu 0 4k",
        "write -f 0 4k", "write -n 0 512", "write -zn 0 4k", "write 0", "write", "write foo 1", "write 0 foo",
        "write 5M 1", "read 5M 1", "read 0 -1", "foo", "write -P 256 0 1", "write -P x 0 1", "readv 0 512 512",
        "writev -P 2 0 512 1k", "readv -P 2 0 1k 512", "readv -v 0 16 16", "aio_write -P 3 0 4k", "aio_read -P 3 0 4k",
        "aio_write -u 0 4k", "length", "info", "discard 0 64k", "discard -q 0 4k", "alloc 0 64k", "alloc 0",
        "alloc 1k", "alloc 100M", "alloc 0 100M", "alloc -1", "alloc foo", "map", "truncate", "truncate foo",
        "sleep 1", "sleep", "sleep x", "close", "write 0 4k 5", "read -P", "read -Z 0 4k", "discard 1", "map 1",
        "length 3", "aio_read 0", "open", "open nofile", "reopen -x", "reopen -c foo", "help foo", "discard foo 1",
        "discard 5M 1", "readv 0", "readv 0 foo", "read -s 1 0 512", "read -P 1 -l 5k 0 4k", "read -b 0 512",
        "read -p 0 512", "write -b 0 512", "write -s nofile 0 512", "write -z -P 1 0 512", "read 0 3G", "write 0 3G",
        "aio_write 5M 1", "aio_read 5M 1", "readv 5M 1", "writev 5M 1", "read -C 0 1k", "w 0 1k", "r 0 1k", "d 0 1k",
        "q", "l", "f", "a 0", "i", "c", "o", "help", "read 0 1", "read 0 1000", "read 0 1025", "read 0 1M",
        "read 0 1536k", "read 0 2000000"]] + [
        "qemu-io -f raw -c 'close' -c 'read 0 1' f", "qemu-io -f raw -c 'quit' -c 'read 0 1' f",
        "qemu-io -f raw -r -c 'write 0 512' f", "qemu-io -f raw nofile", "printf 'read 0 4k\\nquit\\n' | qemu-io -f raw f",
        "printf 'read 0 4k\\n' | qemu-io -f raw f", "qemu-io -f raw -c 'truncate 8M' -c length f",
        "qemu-io -f raw -c 'reopen -r' -c 'write 0 1k' -c 'reopen -w' -c 'write 0 1k' f",
        "qemu-io -c 'open f' -c 'read 0 512' -c quit",
        "qemu-io --image-opts -c 'read 0 4k' driver=raw,file.filename=f"]),
    "qcow2": (True, CHAIN + [
        "qemu-img info a.qcow2", "qemu-img info --output=json b.qcow2", "qemu-img info --backing-chain b.qcow2",
        "qemu-img info --backing-chain --output=json b.qcow2", "qemu-img check a.qcow2",
        "qemu-img check --output=json b.qcow2", "qemu-img map b.qcow2", "qemu-img map --output=json b.qcow2",
        "qemu-img map --output=json --start-offset=1M --max-length=1M b.qcow2", "qemu-img map -s 1M -l 64k b.qcow2",
        "qemu-img map --start-offset=10M b.qcow2", "qemu-img map --output=json --start-offset=10M b.qcow2",
        "qemu-img compare a.raw a.qcow2", "qemu-img compare -s a.raw a.qcow2", "qemu-img compare -p a.raw a.qcow2",
        "qemu-img compare a.raw b.qcow2", "qemu-img convert -p -O raw a.qcow2 x", "cmp x a.raw",
        "qemu-img convert -O qcow2 -B a.qcow2 -F qcow2 b.qcow2 x", "qemu-img map x",
        "qemu-img convert -O raw -B a.qcow2 -F qcow2 b.qcow2 x", "qemu-img convert -F qcow2 b.qcow2 x",
        "qemu-img convert -l nope -O raw a.qcow2 x", "qemu-img convert -O qcow2 -o foo=1 a.raw x",
        "qemu-img convert -c -O qcow2 -f raw a.raw c.qcow2", "qemu-img map c.qcow2", "qemu-img map --output=json c.qcow2",
        "qemu-img compare a.raw c.qcow2", "qemu-img check c.qcow2", "qemu-img check --output=json c.qcow2",
        "qemu-img convert -O qcow2 -S 0 a.raw s0.qcow2", "qemu-img map s0.qcow2",
        "qemu-img measure -O qcow2 a.raw", "qemu-img measure -O qcow2 --size 1G",
        "qemu-img measure --output=json -O qcow2 b.qcow2", "qemu-img measure -O raw b.qcow2",
        "qemu-img measure -O qcow2 -o cluster_size=4k a.raw", "qemu-img measure -O qcow2 -o foo=1 a.raw",
        "qemu-img measure -l x a.qcow2", "qemu-io -c map b.qcow2", "qemu-io -c info b.qcow2",
        "qemu-io -c 'write -c -P 5 2M 64k' b.qcow2", "qemu-io -c 'alloc 0 4M' b.qcow2",
        "qemu-img resize c.qcow2 8M", "qemu-img resize c.qcow2 +1000", "qemu-img info c.qcow2",
        "qemu-img resize -q c.qcow2 +1M", "qemu-img resize c.qcow2 4M"]),
    "create": (True, [
        "qemu-img create -f qcow2 a.qcow2 64M", "qemu-img create -f qcow2 -b a.qcow2 -F qcow2 b.qcow2",
        "qemu-img create -f qcow2 -b no.qcow2 -F qcow2 c.qcow2", "qemu-img create -f qcow2 -b no.qcow2 -F qcow2 c.qcow2 1M",
        "qemu-img create -f qcow2 -u -b no.qcow2 -F qcow2 c.qcow2 1M", "qemu-img info c.qcow2",
        "qemu-img info --backing-chain c.qcow2", "qemu-img create -f qcow2 -o size=1M d.qcow2",
        "qemu-img create -f qcow2 -o size=1M d.qcow2 2M", "qemu-img create -f qcow2 -b a.qcow2 -F nope e.qcow2",
        "qemu-img create -f qcow2 -o backing_file=a.qcow2,backing_fmt=qcow2 f.qcow2", "qemu-img create -f qcow2 odd.qcow2 1000",
        "qemu-img create -q -f qcow2 q.qcow2 1M", "qemu-img create -f qcow2 -o size=foo x",
        "qemu-img create -f qcow2 -o cluster_size=3 x 1M", "qemu-img create -f qcow2 -o preallocation=foo x 1M",
        "qemu-img create -f qcow2 -F qcow2 x 1M", "qemu-img create -f qcow2 -o foo=1 x 1M",
        "qemu-img create -f qcow2 -o help", "qemu-img create -f vmdk x.vmdk 64M", "qemu-img create -f vdi x.vdi 64M",
        "qemu-img create -f qcow x.qcow 64M", "qemu-img info x.vdi", "qemu-img info x.qcow", "qemu-img check x.vdi",
        "qemu-img convert -O vdi a.qcow2 y.vdi", "qemu-img compare a.qcow2 y.vdi"]),
    "snapshots": (True, QCOW2 + [
        "qemu-img snapshot -l a.qcow2", "qemu-img snapshot -c s1 a.qcow2", "qemu-img snapshot -l a.qcow2",
        "qemu-img info a.qcow2", "qemu-img info --output=json a.qcow2", "qemu-io -c 'write -P 9 0 1M' a.qcow2",
        "qemu-img convert -l s1 -O raw a.qcow2 old.raw", "cmp old.raw a.raw", "qemu-img snapshot -a nope a.qcow2",
        "qemu-img snapshot -d nope a.qcow2", "qemu-img snapshot -q -a s1 a.qcow2", "qemu-img compare a.raw a.qcow2",
        "qemu-img snapshot -d s1 a.qcow2", "qemu-img check a.qcow2", "qemu-img snapshot a.qcow2"]),
    "rebase_and_commit": (True, CHAIN + [
        "qemu-img convert -O raw b.qcow2 whole.raw", "qemu-img rebase -b nofile -F qcow2 b.qcow2",
        "qemu-img rebase -u -b nofile -F qcow2 b.qcow2", "qemu-img rebase -u -b a.qcow2 -F qcow2 b.qcow2",
        "qemu-img rebase -F nope -b a.qcow2 b.qcow2", "qemu-img rebase -p -b '' b.qcow2", "qemu-img info b.qcow2",
        "qemu-img compare b.qcow2 whole.raw", "qemu-img check b.qcow2", "qemu-img rebase -b a.qcow2 -F qcow2 b.qcow2",
        "qemu-img compare b.qcow2 whole.raw", "qemu-img commit a.qcow2",
        "qemu-img create -q -f qcow2 -b b.qcow2 -F qcow2 d.qcow2", "qemu-io -c 'write -P 7 2M 1M' d.qcow2",
        "qemu-img convert -O raw d.qcow2 whole2.raw", "qemu-img commit -b nope d.qcow2",
        "qemu-img commit -b d.qcow2 d.qcow2", "qemu-img commit -d -b a.qcow2 d.qcow2",
        "qemu-img compare d.qcow2 whole2.raw", "qemu-img compare a.qcow2 whole2.raw", "qemu-img check a.qcow2"]),
    "bitmaps_and_amend": (True, QCOW2 + [
        "qemu-img bitmap --add a.qcow2 bm", "qemu-img bitmap --add a.qcow2 bm", "qemu-img info a.qcow2",
        "qemu-img bitmap --disable --clear a.qcow2 bm", "qemu-img bitmap --add --merge bm a.qcow2 bm2",
        "qemu-img bitmap --add -g 3 a.qcow2 bm3", "qemu-img bitmap --add -g 4k --disable a.qcow2 bm3",
        "qemu-img bitmap --remove a.qcow2 nope", "qemu-img bitmap --remove a.qcow2 bm",
        "qemu-img bitmap --merge nope a.qcow2 bm2", "qemu-img info --output=json a.qcow2",
        "qemu-img measure -O qcow2 a.qcow2", "qemu-img convert --bitmaps -O qcow2 a.qcow2 bmo.qcow2",
        "qemu-img info bmo.qcow2", "qemu-img amend -o foo=1 a.qcow2", "qemu-img amend -o cluster_size=4k a.qcow2",
        "qemu-img amend -o lazy_refcounts=on -q a.qcow2", "qemu-img amend -o size=16M a.qcow2", "qemu-img info a.qcow2"]),
    "amend_refcounts": (True, QCOW2 + ["qemu-img snapshot -c s a.qcow2"] + [
        line for options in ("refcount_bits=1", "refcount_bits=2", "refcount_bits=64", "refcount_bits=8", "refcount_bits=3",
                             "refcount_bits=0", "refcount_bits=128", "refcount_bits=x", "compat=0.10", "compat=0.10,refcount_bits=8",
                             "compat=0.10,refcount_bits=32", "refcount_bits=32,lazy_refcounts=on")
        for line in ("qemu-img amend -o %s a.qcow2" % options, "/usr/bin/qemu-img check -q a.qcow2", "qemu-img check -q a.qcow2",
                     "qemu-img compare a.raw a.qcow2", "qemu-img info a.qcow2 | grep -e refcount -e compat")] + [
        "qemu-img snapshot -d s a.qcow2", "qemu-img bitmap --add a.qcow2 bm", "qemu-img amend -o refcount_bits=1 a.qcow2",
        "/usr/bin/qemu-img check -q a.qcow2", "qemu-img info a.qcow2 | grep -e refcount -e 'name: bm'",
        "qemu-img bitmap --remove a.qcow2 bm", "qemu-img amend -o compat=0.10,refcount_bits=16,lazy_refcounts=off a.qcow2",
        "qemu-img amend -o refcount_bits=4 a.qcow2", "qemu-img amend -o compat=1.1,refcount_bits=4 a.qcow2",
        "/usr/bin/qemu-img check -q a.qcow2", "qemu-img compare a.raw a.qcow2", "qemu-img info a.qcow2 | grep -e refcount -e compat",
        "qemu-img create -q -f qcow2 -o extended_l2=on,cluster_size=16k e.qcow2 4M", "qemu-io -c 'write -P 4 1000 30000' e.qcow2",
        "qemu-img amend -o refcount_bits=1 e.qcow2", "/usr/bin/qemu-img check -q e.qcow2", "qemu-io -c 'read -P 4 1000 30000' e.qcow2"]),
    "commit_empties": (True, CHAIN + [
        "qemu-img convert -O raw b.qcow2 whole.raw", "qemu-img commit -p b.qcow2", "qemu-img map b.qcow2",
        "qemu-img map --output=json b.qcow2", "qemu-img check -q b.qcow2", "qemu-img compare b.qcow2 whole.raw",
        "qemu-img compare a.qcow2 whole.raw", "qemu-io -c 'write -P 4 2M 64k' b.qcow2", "qemu-img snapshot -c s b.qcow2",
        "qemu-io -c 'write -P 5 2M 128k' b.qcow2", "qemu-img commit -q b.qcow2", "qemu-img check -q b.qcow2",
        "qemu-io -c 'read -P 5 2M 128k' b.qcow2", "qemu-img snapshot -a s b.qcow2", "qemu-io -c 'read -P 4 2M 64k' b.qcow2",
        "qemu-img check -q b.qcow2", "qemu-img commit -d b.qcow2", "qemu-img create -q -f qcow base.qcow 1M",
        "qemu-img create -q -f qcow2 -b base.qcow -F qcow o.qcow2", "qemu-io -c 'write -P 9 4k 8k' o.qcow2",
        "qemu-img commit -f qcow2 o.qcow2", "qemu-io -f qcow -c 'read -P 9 4k 8k' base.qcow",
        "qemu-img create -q -f qcow2 -b base.qcow -F qcow big.qcow2 4M", "qemu-io -c 'write -P 9 3M 8k' big.qcow2",
        "qemu-img create -q -f raw base.raw 1M", "qemu-img create -q -f qcow2 -b base.raw -F raw grow.qcow2 4M",
        "qemu-io -c 'write -P 9 3M 8k' grow.qcow2", "qemu-img commit grow.qcow2", "qemu-img info base.raw",
        "qemu-io -f raw -c 'read -P 9 3M 8k' base.raw"]),
    "commit_empties_qcow": (True, [
        "qemu-img create -q b.raw 4M", "qemu-img create -q -f qcow -b b.raw -F raw o.qcow",
        "qemu-io -f qcow -c 'write -P 3 1M 64k' o.qcow", "qemu-img commit -f qcow o.qcow",
        "qemu-img map --output=json o.qcow", "qemu-io -f raw -c 'read -P 3 1M 64k' b.raw", "stat -c %s o.qcow",
        "qemu-io -f qcow -c 'write -P 4 1M 4k' -c 'read -P 3 1028k 60k' -c 'read -P 4 1M 4k' o.qcow"]),
    "commit_keeps_vmdk": (True, [
        "qemu-img create -q -f vmdk b.vmdk 4M", "qemu-img create -q -f vmdk -b b.vmdk -F vmdk o.vmdk",
        "qemu-io -f vmdk -c 'write -P 3 1M 64k' o.vmdk", "qemu-img commit -f vmdk o.vmdk",
        "qemu-io -f vmdk -c 'read -P 3 1M 64k' b.vmdk", "qemu-io -f vmdk -c 'read -P 3 1M 64k' o.vmdk",
        "qemu-io -f vmdk -c 'write -P 4 1M 4k' -c 'read -P 4 1M 4k' o.vmdk"]),
    "open_options": (True, QCOW2 + [
        "qemu-img info --image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2,file.locking=off",
        "qemu-img compare --image-opts driver=raw,file.filename=a.raw,cache.direct=on driver=qcow2,file.filename=a.qcow2,cache.no-flush=on",
        "qemu-io --image-opts -c 'read -P 2 1M 64k' driver=qcow2,file.filename=a.qcow2,cache.direct=off,discard=unmap",
        "qemu-io --image-opts -c 'read 0 1' driver=qcow2,file.filename=a.qcow2,discard=foo",
        "qemu-io --image-opts -c 'read 0 1' driver=qcow2,file.filename=a.qcow2,detect-zeroes=foo",
        "qemu-io --image-opts -c 'write -P 0 1M 64k' -c 'write -P 0 1152k 1k' driver=qcow2,file.filename=a.qcow2,detect-zeroes=on",
        "qemu-img map --output=json a.qcow2",
        "qemu-io --image-opts -c 'write -P 0 1280k 64k' driver=qcow2,file.filename=a.qcow2,detect-zeroes=unmap",
        "qemu-io --image-opts -c 'write -P 0 1280k 64k' driver=qcow2,file.filename=a.qcow2,detect-zeroes=unmap,discard=unmap",
        "qemu-img map --output=json a.qcow2", "qemu-img check -q a.qcow2",
        "qemu-io --image-opts -c 'write -P 0 1M 64k' driver=raw,file.filename=a.raw,detect-zeroes=unmap,discard=unmap",
        "qemu-img map --output=json -f raw a.raw"]),
    "driver_options": (True, RAW + QCOW2[2:] + [
        "qemu-io --image-opts -c length -c 'write 0 4k' -c 'read 512 512' " + options for options in (
            "driver=raw,foo=on,file.filename=a.raw", "driver=raw,file.filename=a.raw,file.foo=1",
            "driver=raw,ofset=1,file.filename=a.raw", "driver=raw,size=1,file.filename=a.raw",
            "driver=raw,offset=5M,file.filename=a.raw", "driver=raw,offset=1M,size=1M,file.filename=a.raw",
            "driver=raw,offset=1M,size=4M,file.filename=a.raw", "driver=qcow2,file.filename=a.qcow2,foo=1",
            "driver=qcow2,lazy-refcounts=x,file.filename=a.qcow2", "driver=qcow2,file.filename=a.qcow2,l2-cache-sise=1",
            "driver=qcow2,file.filename=a.qcow2,overlap-check=foo", "driver=qcow2,file.filename=a.qcow2,overlap-check=all",
            "driver=qcow2,file.filename=a.qcow2,overlap-check.template=none,overlap-check.main-header=on",
            "driver=qcow2,file.filename=a.qcow2,cache-size=1M,l2-cache-size=2M",
            "driver=qcow2,file.filename=a.qcow2,cache-size=1M,l2-cache-size=512k",
            "driver=qcow2,file.filename=a.qcow2,l2-cache-entry-size=4k", "driver=qcow2,file.filename=a.qcow2,l2-cache-entry-size=3k",
            "driver=qcow2,file.filename=a.qcow2,pass-discard-request=foo", "driver=qcow2", "driver=foo,file.filename=a.raw",
            "file.driver=fole,file.filename=a.raw", "driver=null-co,sise=3", "driver=null-co,latency-ns=5",
            "driver=blkdebug,image.filename=a.raw,inject-error.0.event=none,inject-error.0.iotype=write",
            "driver=blkdebug,image.filename=a.raw,align=4096", "driver=blkdebug,image.filename=a.raw,foo=1",
            "driver=qcow2,file.driver=blkdebug,file.image.filename=a.qcow2,file.inject-error.0.event=cluster_alloc,file.inject-error.0.once=on",
            "driver=raw,file.filename=a.raw,file.aio=native", "driver=raw,file.filename=a.raw,file.locking=foo",
            "driver=raw,file.filename=a.raw,file.aio-max-batch=3", "driver=raw,file.filename=a.raw,file.drop-cache=off")] + [
        "qemu-img create -f qcow2 -o cluster_siz=4k x 1M", "qemu-img create -f qcow3 x 1M", "qemu-img info -f qcow3 a.qcow2",
        "qemu-io -d foo -c length a.qcow2", "qemu-io -i native -c length a.qcow2", "qemu-io -n -i native -c length a.qcow2"]),
    "creation_options": (True, ["qemu-img create -q -f raw base.raw 4M", "qemu-io -f raw -c 'write -P 3 0 4M' base.raw"] + [
        line % dict(f=f, o=o, g="| grep -v -i -e cid -e uuid -e iters") for f, options in (
            ("raw", ("preallocation=foo", "preallocation=metadata", "nocow=on", "nocow=foo", "extent_size_hint=1M", "extent_size_hint=foo",
                     "nocow=on,preallocation=full,extent_size_hint=64k", "backing_file=base.raw")),
            ("file", ("preallocation=off", "preallocation=full", "foo=1", "nocow=on")), ("null-co", ("size=1",)),
            ("qcow", ("preallocation=off", "encryption=off", "cluster_size=4k")), ("vdi", ("preallocation=full", "preallocation=metadata", "static=on")),
            ("vmdk", ("subformat=monolithicFlat", "subformat=twoGbMaxExtentSparse", "subformat=twoGbMaxExtentFlat,nocow=on")),
            ("vpc", ("force_size=on,subformat=fixed", "preallocation=off")), ("vhdx", ("log_size=0", "log_size=1000", "block_size=3M", "block_size=512M,subformat=fixed")),
            ("qcow2", ("data_file=d,data_file_raw=on", "data_file=", "encrypt.key-secret=x", "lazy_refcounts=true", "lazy_refcounts=yes", "lazy_refcounts",
                       "nolazy_refcounts", "refcount_bits=0x10", ",", "cluster_size=4k,", ",cluster_size=4k", "cluster_size=4k,,", "nocow", "cluster_size=256", "compat=2",
                       "extended_l2=on,preallocation=metadata", "extended_l2=on,preallocation=full", "extended_l2=on,preallocation=metadata,backing_file=base.raw,backing_fmt=raw")))
        for o in options for line in ("rm -f x d; qemu-img create -f %(f)s -o %(o)s x 8M", "[ ! -s x ] || qemu-img info x %(g)s; [ ! -s x ] || qemu-img map --output=json -U x | sed 's/, .offset.*//'")
        if not ("qemu-img map" in line and f == "vhdx")] + ["qemu-img compare -f qcow2 -F raw x base.raw"] + [
        "qemu-img create -f %s -o help x" % f for f in ("raw", "qcow2", "qcow", "vmdk", "vdi", "vpc", "vhdx", "luks", "file", "host_device", "nbd", "cloop")] + [
        "qemu-img create -f raw -o help nbd:x", "qemu-img create -f raw -o help foo:x", "qemu-img create -f raw foo:x 1M", "qemu-img create -f raw null-co:// 1M",
        "qemu-img create -f host_device x.img 1M", "qemu-img create -f host_cdrom x.img 1M", "qemu-img convert -O raw -o help a b",
        "qemu-img create -f qcow2 -u -b base.raw y 1M"]),
    "nbd_targets": (True, RAW + [line.replace("URL", "'nbd+unix:///?socket='$PWD/s") for line in (
        "qemu-img create -q e.raw 8M; qemu-io -f raw -c 'write -P 9 0 8M' e.raw; /usr/bin/qemu-nbd -f raw -t -e 9 -k $PWD/s --fork --pid-file=$PWD/p e.raw",
        "qemu-img create -q -f nbd URL 4M", "qemu-img create -q -f nbd URL 8M", "qemu-img create -q -f nbd -o preallocation=off URL 4M",
        "qemu-io -f raw -c 'read -P 0 0 512' -c 'read -P 9 512 1M' URL", "qemu-img create -q -f raw URL 4M", "qemu-img convert -f raw -O raw a.raw URL",
        "qemu-io -f raw -c 'read -P 1 0 64k' -c 'read -P 0 64k 960k' -c 'read -P 2 1M 1M' -c 'read -P 0 2M 2M' -c 'read -P 9 4M 4M' URL",
        "qemu-img convert -f raw -O qcow2 a.raw URL", "qemu-img compare -f raw -F qcow2 a.raw URL", "qemu-img check -q -f qcow2 URL",
        "qemu-img resize -f raw URL 8M", "kill $(cat p)")] + [
        line.replace("URL", "'nbd+unix:///?socket='$PWD/s") + " 2>&1 | sed s,$PWD,D,g" for line in (
        "/usr/bin/qemu-nbd -f raw -t -e 9 -k $PWD/s --fork --pid-file=$PWD/p e.raw; qemu-img create -q -f nbd URL 16M", "qemu-img create -q -f raw URL 16M",
        "qemu-img create -q -f raw -o preallocation=full URL 4M", "qemu-img resize -f raw URL +1M", "kill $(cat p); qemu-img create -q -f raw 'nbd+unix:///?socket='$PWD/none 4M")]),
    "odd_sizes": (True, ["head -c 1000 /dev/zero | tr '\\0' x > odd", "head -c 70001 /dev/zero | tr '\\0' y > odd2"] + [
        line.replace("X", name) for name in ("odd", "odd2") for line in (
            "qemu-img info -f raw X", "qemu-img info -f raw --output=json X", "qemu-img map -f raw X", "qemu-img map --output=json -f raw X", "qemu-img convert -f raw -O raw X out; stat -c %s out",
            "qemu-img convert -f raw -O qcow2 X out.qcow2; qemu-img info out.qcow2 | grep virtual; qemu-img compare -f raw X out.qcow2", "qemu-img measure -f raw X",
            "qemu-img dd -f raw if=X of=copy; stat -c %s copy", "qemu-img compare -f raw -F raw X copy", "qemu-img resize -f raw X +1; stat -c %s X", "qemu-img resize -f raw X +511; stat -c %s X",
            "qemu-io -f raw -c length -c 'read 0 1000' -c 'read 0 1025' -c 'write 900 124' -c 'write 1020 10' -c length X; stat -c %s X",
            "qemu-img create -q -f qcow2 -b X -F raw ov; qemu-img info ov | grep virtual; qemu-io -c 'read 0 1000' ov; qemu-img commit ov; stat -c %s X",
            "qemu-io -f raw -c 'truncate 999' -c length X; stat -c %s X")]),
    "measures": (True, CHAIN + ["qemu-img create -q -f qcow2 -o compat=0.10 old.qcow2 4M"] + ["qemu-img measure -O %s %s" % (o, x) for x in ("a.raw", "b.qcow2", "old.qcow2", "--size 4M") for o in (
        "raw", "raw -o preallocation=full", "raw -o nocow=on", "qcow2", "qcow2 -o compat=0.10", "qcow2 -o backing_file=x", "qcow2 -o preallocation=metadata", "qcow2 -o data_file=x", "luks", "luks -o key-secret=x",
        "qcow2 -o encrypt.format=luks", "qcow2 -o encrypt.format=luks,encrypt.key-secret=x", "luks --object secret,id=x,data=abc -o key-secret=x", "qcow2 -o ,")] + [
        "qemu-img bitmap --add old.qcow2 b 2>&1 | sed \"s/persistent in '.*':/:/\"", "qemu-img bitmap --remove old.qcow2 b", "qemu-img bitmap --remove a.raw b", "qemu-img convert --bitmaps -O qcow2 old.qcow2 x",
        "qemu-img bench -s 0 -c 1 a.qcow2", "qemu-img bench -S 0 -c 1 a.qcow2", "qemu-img bench -s 4G -c 1 a.qcow2", "qemu-img compare -p a.raw nofile",
        "qemu-img commit -b '' b.qcow2", "qemu-img commit -b nope a.qcow2", "qemu-img rebase -u -b nope -F qcow2 b.qcow2", "qemu-img check b.qcow2"]),
    "convert_everywhere": (True, RAW + [line % dict(f=f) for f in ("raw", "qcow2", "vmdk", "vdi", "vpc", "vhdx") for line in (
        "rm -f y; qemu-img convert -f raw -O %(f)s a.raw y", "qemu-img convert -c -f raw -O %(f)s a.raw yc", "[ ! -e yc ] || qemu-img compare -f raw -F %(f)s a.raw yc; rm -f yc",
        "qemu-img convert -o size=8M -f raw -O %(f)s a.raw ys; qemu-img info -f %(f)s ys | grep virtual", "qemu-img convert -o size=2M -f raw -O %(f)s a.raw ys; qemu-img info -f %(f)s ys | grep virtual",
        "qemu-img convert -m 16 -W -f raw -O %(f)s a.raw yw && qemu-img compare -f raw -F %(f)s a.raw yw", "qemu-img convert -n -f raw -O %(f)s a.raw y && qemu-img compare -f raw -F %(f)s a.raw y",
        "qemu-img convert -n --target-is-zero -f raw -O %(f)s a.raw yw", "qemu-img convert --salvage -r 100M -f raw -O %(f)s a.raw yr", "qemu-img convert -B a.raw -F raw -f raw -O %(f)s a.raw yb 2>&1 | grep -v warning",
        "qemu-img check -r all -f %(f)s y 2>/dev/null", "qemu-img snapshot -l -f %(f)s y", "qemu-img rebase -f %(f)s -b '' y", "qemu-img resize -f %(f)s y -1M 2>/dev/null", "qemu-img map -f %(f)s -s 1M -l 1M --output=json y | sed 's/, .offset.*//; s/}]//'")]),
    **{"both_ways_" + form: (True, both_ways(form)) for form in OPTIONS},
    "compressed_both_ways": (True, ["qemu-img create -q -f raw m 9M; qemu-io -f raw %s m >/dev/null" % REQUESTS] + [
        line.format(a=a, b=b) for a, b in (("", "/usr/bin/"), ("/usr/bin/", "")) for line in (
            "rm -f y; {a}qemu-img convert -f raw -O vmdk -o subformat=streamOptimized m y; {b}qemu-img compare -f raw -F vmdk m y; {b}qemu-img check -q y",
            "rm -f y; {a}qemu-img convert -c -f raw -O qcow m y 2>/dev/null; {b}qemu-img compare -f raw -F qcow m y",
            *("rm -f y; {a}qemu-img convert -c -f raw -O qcow2 -o " + o + " m y; {b}qemu-img compare -f raw -F qcow2 m y; {b}qemu-img check -q y; {b}qemu-io -c 'write -P 8 1000 100' -c 'read -P 8 1000 100' y"
              for o in ("compression_type=zstd", "compression_type=zlib", "cluster_size=4k", "cluster_size=2M", "extended_l2=on", "compat=0.10", "refcount_bits=8")))]),
    "luks_ciphers": (True, [
        ("rm -f l; {a}qemu-img create -q SECRET -f luks -o key-secret=s,iter-time=10,%s l 1M && {b}qemu-io SECRET LUKS -c 'write -P 5 0 1M' && {a}qemu-io SECRET LUKS -c 'read -P 5 0 1M'" % o).format(a=a, b=b).replace(
            "SECRET", "--object secret,id=s,data=abc").replace("LUKS", "--image-opts driver=luks,file.filename=l,key-secret=s")
        for a, b in (("", "/usr/bin/"), ("/usr/bin/", "")) for o in (
            "cipher-alg=aes-128", "cipher-alg=aes-256,cipher-mode=xts", "cipher-mode=cbc", "cipher-mode=ecb", "cipher-mode=ctr", "cipher-mode=cbc,ivgen-alg=essiv,ivgen-hash-alg=sha256",
            "cipher-mode=cbc,ivgen-alg=plain", "ivgen-alg=plain64", "hash-alg=sha1", "hash-alg=sha512", "hash-alg=ripemd160", "hash-alg=md5", "cipher-alg=foo")] + [
        "qemu-img create --object secret,id=s,data=a --object secret,id=s,data=b -f raw r 1M"]),
    "amends": (True, RAW + ["qemu-img create -q -f raw base 4M", "qemu-img convert -f raw -O qcow2 a.raw a0"] + [
        line % o for o in ("compat=0.10", "compat=foo", "lazy_refcounts=on,compat=0.10", "size=8M", "size=2M", "backing_file=base,backing_fmt=raw", "backing_file=", "data_file=x",
                           "cluster_size=4k", "encryption=on", "preallocation=off", "extended_l2=off", "foo=1", ",", "help", "size=8M,lazy_refcounts=on")
        for line in ("rm -f a; cp a0 a; qemu-img amend -o %s a", "qemu-img info a; qemu-img check -q a; : %s", "qemu-img amend -q -o %s a")]),
    "snapshot_names": (True, QCOW2 + ["qemu-img snapshot %s a.qcow2" % o for o in (
        "-c a", "-c a", "-c b", "-c ''", "-c 1", "-l", "-a 1", "-a b", "-a 99", "-d 1", "-d 2", "-d a", "-d zz", "-l", "-c $(head -c 300 /dev/zero | tr '\\0' n)", "-U -c u", "-U -l", "-l -c x", "")] + [
        "qemu-img convert -l a -O raw a.qcow2 x", "qemu-img convert -l snapshot.name=b -O raw a.qcow2 x", "qemu-img convert -l snapshot.id=2 -O raw a.qcow2 x", "qemu-img convert -l snapshot.id=77 -O raw a.qcow2 x",
        "qemu-img measure -l b -O qcow2 a.qcow2"]),
    "checks_of_damaged_images": (True, [
        "M() { /usr/bin/qemu-img create -q -f qcow2 i 4M; /usr/bin/qemu-io -c 'write -q -P 5 0 256k' i; python3 -c \"import struct; f = open('i', 'r+b'); "
        "f.seek(%s); f.write(struct.pack('>%s', %s))\"; }; M; %s" % (at, form, value, check)
        for at, form, value in ((0x40000, "Q", "0x8000000000050200"), (0x40000, "Q", "0x8000000000050201"), (0x40000, "Q", "0x50000"), (0x40000, "Q", "0x8000000000050001"), (0x40000, "Q", "0x8000000100000000"),
                                (0x40008, "Q", "0x8000000000050000"), (0x40000, "Q", "0"), (0x30000, "Q", "0x40000"), (0x30000, "Q", "0"), (0x20008, "H", "0"), (0x20008, "H", "2"), (0x2000e, "H", "7"), (72, "Q", "2"), (72, "Q", "1"))
        for check in ("qemu-img check i", "qemu-img check --output=json i", "qemu-img check -r leaks i | grep -v -e ^Image", "qemu-img check -r all -q i >/dev/null 2>&1; echo $?; /usr/bin/qemu-img check -q i >/dev/null 2>&1; echo $?")]),
    "io_options": (True, CHAIN + ["cp b.qcow2 b0; cp a.qcow2 a0"] + ["cp b0 b.qcow2; cp a0 a.qcow2; qemu-io %s" % c for c in (
        "-C b.qcow2 -c 'read 0 64k' -c map", "-c 'open -C b.qcow2' -c 'readv 0 64k 100k' -c map", "-d unmap b.qcow2 -c 'discard 0 1M' -c map -c 'read -P 0 0 1M'", "-d ignore b.qcow2 -c 'discard 0 1M' -c map",
        "-U b.qcow2 -c 'read 0 4k'", "-U -r b.qcow2 -c 'read 0 4k'", "-c 'open -U b.qcow2'", "-k b.qcow2 -c length", "-k -n b.qcow2 -c length", "--image-opts -f qcow2 driver=qcow2,file.filename=b.qcow2 -c length",
        "b.qcow2 -c 'reopen -r -w'", "b.qcow2 -c 'reopen -r -r'", "b.qcow2 -c 'break write_aio A'", "b.qcow2 -c 'writev 0 1k 0 3k' -c 'alloc 0 4M' -c 'truncate 8M' -c length -c map")] + [
        "qemu-img create -q -f qcow2 q 4M; qemu-io -c 'open -o driver=qcow2,file.driver=blkdebug,file.image.filename=q%s' %s" % (o, c) for o, c in (
            ("", "-c 'break write_aio A' -c 'aio_write -P 5 0 64k' -c 'wait_break A' -c 'read -P 0 0 64k' -c 'resume A' -c aio_flush -c 'read -P 5 0 64k'"),
            (",file.inject-error.0.event=refblock_alloc,file.inject-error.0.once=on", "-c 'write -P 1 0 64k' -c 'write -P 2 0 64k' -c 'read -P 2 0 64k'"),
            (",file.align=4096", "-c 'write 100 100' -c 'read -P 0xcd 100 100'"))]),
    "encrypted_targets": (True, RAW + [
        "qemu-img convert --object secret,id=s,data=abc -f raw -O luks -o key-secret=s,iter-time=10 a.raw l",
        "qemu-img compare --object secret,id=s,data=abc --image-opts driver=raw,file.filename=a.raw driver=luks,file.filename=l,key-secret=s",
        "/usr/bin/qemu-img compare --object secret,id=s,data=abc --image-opts driver=raw,file.filename=a.raw driver=luks,file.filename=l,key-secret=s",
        "qemu-img convert --object secret,id=s,data=abc -f raw -O qcow2 -o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 a.raw q",
        "/usr/bin/qemu-img compare --object secret,id=s,data=abc --image-opts driver=raw,file.filename=a.raw driver=qcow2,file.filename=q,encrypt.key-secret=s",
        "qemu-img convert --object secret,id=s,data=abc -f raw -O qcow -o encrypt.format=aes,encrypt.key-secret=s a.raw q1",
        "/usr/bin/qemu-img compare --object secret,id=s,data=abc --image-opts driver=raw,file.filename=a.raw driver=qcow,file.filename=q1,encrypt.key-secret=s"]),
    "luks": (True, [
        "qemu-img create -f luks l.img 4M", "qemu-img create -f luks -o help",
        "qemu-img create --object secret,id=s,data=abc -f luks -o key-secret=s,iter-time=10 l.img 4M",
        "qemu-img create --object secret,id=s,data=abc -f luks -o key-secret=nope l2.img 4M",
        "qemu-img info l.img | grep -v -e uuid -e iters", "qemu-img check l.img",
        "qemu-img info --output=json l.img | grep -v -e uuid -e iters",
        "qemu-io -c 'read 0 1' -f luks l.img", "qemu-img convert -O raw l.img x",
        "qemu-io --object secret,id=s,data=abd --image-opts driver=luks,file.filename=l.img,key-secret=s -c 'read 0 512'",
        "qemu-io --object secret,id=s,data=abc --image-opts driver=luks,file.filename=l.img,key-secret=s -c 'write -P 7 1000 100000' -c 'read -P 7 1000 100000' -c length",
        "qemu-img resize --object secret,id=s,data=abc --image-opts driver=luks,file.filename=l.img,key-secret=s 5M",
        "qemu-img convert --object secret,id=s,data=abc --image-opts -O raw driver=luks,file.filename=l.img,key-secret=s out.raw",
        "/usr/bin/qemu-io -f raw -c 'read -P 7 1000 100000' out.raw",
        "/usr/bin/qemu-io --object secret,id=s,data=abc --image-opts driver=luks,file.filename=l.img,key-secret=s -c 'read -P 7 1000 100000' -c 'write -P 8 2M 3k'",
        "qemu-io --object secret,id=s,data=abc --image-opts driver=luks,file.filename=l.img,key-secret=s -c 'read -P 8 2M 3k'",
        "qemu-img measure -O luks --size 10M --object secret,id=s,data=abc -o key-secret=s"]),
    "amend_keys": (True, [line.replace("AMEND", "qemu-img amend SECRETS -o").replace("LUKS", "--image-opts driver=luks,file.filename=l,key-secret").replace(
        "QCOW2", "--image-opts driver=qcow2,file.filename=q,encrypt.key-secret").replace(
        "SECRETS", "--object secret,id=a,data=aaa --object secret,id=b,data=bbb --object secret,id=c,data=ccc").replace(
        "SLOTS", "| grep -e '^ *\\[' -e active") for line in (
        "qemu-img create -q SECRETS -f luks -o key-secret=a,iter-time=10 l 1M",
        "qemu-io SECRETS LUKS=a -c 'write -P 5 0 1M'", "qemu-img amend -f luks -o help", "qemu-img amend -f qcow2 -o help",
        "qemu-img amend -f luks -o state=active l", "AMEND state=active LUKS=a", "AMEND state=foo LUKS=a", "AMEND new-secret=b LUKS=a",
        "AMEND state=active,new-secret=zz LUKS=a", "AMEND state=active,new-secret=b,iter-time=10 LUKS=a",
        "AMEND state=active,new-secret=b,keyslot=1,iter-time=10 LUKS=a", "AMEND state=active,new-secret=b,keyslot=9 LUKS=a",
        "AMEND state=active,new-secret=b,old-secret=a,iter-time=10 LUKS=a", "qemu-img info l SLOTS",
        "/usr/bin/qemu-io SECRETS LUKS=b -c 'read -P 5 0 1M'", "qemu-io SECRETS LUKS=b -c 'read -P 5 0 1M'",
        "qemu-io SECRETS LUKS=c -c 'read -P 5 0 1M'", "AMEND state=inactive LUKS=a", "AMEND state=inactive,keyslot=5 LUKS=a",
        "AMEND state=inactive,keyslot=8 LUKS=a", "AMEND state=inactive,old-secret=c LUKS=a",
        "AMEND state=inactive,new-secret=b,keyslot=1 LUKS=a", "AMEND state=inactive,keyslot=1,iter-time=10 LUKS=a",
        "AMEND state=inactive,keyslot=1,old-secret=a LUKS=a", "AMEND foo=1 LUKS=a", "AMEND size=3 LUKS=a",
        "AMEND state=inactive,old-secret=a LUKS=a", "qemu-img info l SLOTS", "AMEND state=inactive,old-secret=b LUKS=b",
        "AMEND state=inactive,keyslot=1 LUKS=b", "AMEND state=active,new-secret=c,keyslot=1,iter-time=10 --force LUKS=b",
        "/usr/bin/qemu-io SECRETS LUKS=c -c 'read -P 5 0 1M'", "/usr/bin/qemu-io SECRETS LUKS=b -c 'read 0 512'",
        *["AMEND state=active,new-secret=b,iter-time=10 LUKS=c"] * 8, "qemu-img info l SLOTS",
        "/usr/bin/qemu-img amend SECRETS -o state=inactive,old-secret=c LUKS=b", "qemu-io SECRETS LUKS=b -c 'read -P 5 0 1M'",
        "AMEND state=inactive,old-secret=b --force LUKS=b", "qemu-img info l SLOTS", "qemu-io SECRETS LUKS=b -c 'read 0 512'",
        "qemu-img create -q -f qcow2 n 1M", "AMEND encrypt.state=active,encrypt.new-secret=b n",
        "qemu-img create -q SECRETS -f qcow2 -o encrypt.format=luks,encrypt.key-secret=a,encrypt.iter-time=10 q 1M",
        "AMEND encrypt.state=active,encrypt.new-secret=b,encrypt.iter-time=10 QCOW2=a", "AMEND encrypt.state=inactive QCOW2=a",
        "AMEND encrypt.new-secret=b QCOW2=a", "AMEND encrypt.state=inactive,encrypt.old-secret=a QCOW2=a", "qemu-img info q SLOTS",
        "/usr/bin/qemu-io SECRETS QCOW2=b -c 'write -P 5 0 1M'", "qemu-io SECRETS QCOW2=b -c 'read -P 5 0 1M'",
        "AMEND encrypt.state=inactive,encrypt.old-secret=b QCOW2=b", "AMEND encrypt.format=luks QCOW2=b", "qemu-img check -q SECRETS QCOW2=b")]),
    "external_data_and_preallocation": (True, RAW + [
        "qemu-img create -f qcow2 -o data_file=d.data e.qcow2 4M", "qemu-img info e.qcow2 | grep -v 'disk size'",
        "qemu-io -c 'write -P 6 64k 128k' e.qcow2", "qemu-img map --output=json e.qcow2", "qemu-img check e.qcow2",
        "qemu-img create -f qcow2 -o data_file=r.data,data_file_raw=on r.qcow2 4M", "qemu-io -c 'write -P 6 64k 128k' r.qcow2",
        "/usr/bin/qemu-io -f raw -c 'read -P 6 64k 128k' r.data", "qemu-img info --output=json r.qcow2",
        "qemu-img convert -f raw -O qcow2 -o data_file=c.data a.raw c.qcow2", "qemu-img compare a.raw c.qcow2",
        "qemu-img create -f qcow2 -o data_file=r.data,data_file_raw=on -b a.raw -F raw x.qcow2 4M"] + [
        "qemu-img create -f qcow2 -o preallocation=%s p.qcow2 2M && qemu-img check p.qcow2 && qemu-img map --output=json p.qcow2 | sed 's/, .offset.*//'" % m
        for m in ("off", "metadata", "falloc", "full")] + [
        "qemu-img resize --preallocation=%s p.qcow2 +1M && qemu-img check -q p.qcow2" % m
        for m in ("off", "metadata", "falloc", "full")] + [
        "qemu-img create -f raw -o preallocation=%s p.raw 1M && stat -c %%b p.raw" % m for m in ("off", "falloc", "full")] + [
        "qemu-img create -f raw -o preallocation=metadata p.raw 1M", "qemu-img measure -O qcow2 -o preallocation=full --size 1G",
        "qemu-img measure -O qcow2 -o cluster_size=512 --size 1G", "qemu-img measure -O qcow2 -o refcount_bits=64 --size 1T",
        "qemu-img measure -O qcow2 -o extended_l2=on --size 1T", "qemu-img measure -O qcow2 -o cluster_size=2M --size 3G"]),
    "unwritten_data": (True, RAW + [
        "qemu-img create -q -f qcow2 -o preallocation=metadata p.qcow2 2M", "qemu-img map --output=json p.qcow2",
        "qemu-img map p.qcow2", "qemu-io -c 'write 64k 64k' p.qcow2", "qemu-img map --output=json p.qcow2",
        "qemu-img map p.qcow2", "qemu-img convert -O raw p.qcow2 p2.raw", "qemu-img convert -O qcow2 p.qcow2 p2.qcow2",
        "qemu-img map --output=json p2.qcow2", "qemu-img compare p.qcow2 p2.raw", "qemu-img compare -s p.qcow2 p2.qcow2",
        "qemu-img measure -O qcow2 p.qcow2", "qemu-img create -q -f qcow2 -b p.qcow2 -F qcow2 q.qcow2",
        "qemu-img map --output=json q.qcow2", "qemu-io -c 'write 0 2M' p.qcow2", "qemu-img map --output=json p.qcow2",
        "true > e.raw", "qemu-img resize -q -f raw e.raw 1M", "stat -c %b e.raw", "qemu-img map --output=json e.raw",
        "qemu-img create -q -f raw odd.raw 1000", "stat -c %b odd.raw", "qemu-img convert -f raw -O raw a.raw b.raw",
        "stat -c %b b.raw", "qemu-img convert -c -f raw -O qcow2 -o data_file=c.data a.raw c.qcow2"]),
    "read_only_nodes": (False, ["qemu-img create -q a.raw 4M"] + [line.replace("NODE", "driver=raw,file.filename=a.raw,read-only") for line in (
        "qemu-io --image-opts -c 'read 0 512' NODE=on", "qemu-io -r --image-opts -c 'read 0 512' -c 'write 0 512' NODE=on",
        "qemu-io -r --image-opts -c 'write 0 512' NODE=off", "qemu-io -c 'open -o driver=raw,read-only=on a.raw' -c 'read 0 512'",
        "qemu-img info --image-opts NODE=on", "qemu-img resize --image-opts NODE=on 8M", "qemu-img map --image-opts NODE=on",
        "qemu-img convert --image-opts -O raw NODE=on b.raw")]),
    "image_end": (True, QCOW2 + ["qemu-img check a.qcow2", "qemu-img check --output=json a.qcow2",
        "qemu-io -c 'discard 1M 1M' a.qcow2", "qemu-img check a.qcow2", "qemu-img create -q -f qcow2 e.qcow2 16M",
        "qemu-img check e.qcow2", "qemu-io -c 'write 0 1M' -c 'write 8M 1M' e.qcow2", "qemu-img check e.qcow2",
        "qemu-img snapshot -c a e.qcow2", "qemu-img check e.qcow2", "qemu-img snapshot -d a e.qcow2", "qemu-img check e.qcow2",
        "qemu-img convert -c -f raw -O qcow2 a.raw f.qcow2", "qemu-img check f.qcow2", "qemu-img resize f.qcow2 64M",
        "qemu-img check f.qcow2", "qemu-img create -q -f qcow2 -b a.qcow2 -F qcow2 g.qcow2", "qemu-io -c 'write 3M 64k' g.qcow2",
        "qemu-img check g.qcow2", "qemu-img commit g.qcow2", "qemu-img check g.qcow2", "qemu-img check a.qcow2"]),
    "probed_raw": (True, RAW + QCOW2[2:] + [
        "qemu-io -c 'write -P 1 0 512' a.raw", "head -c 512 a.qcow2 > h.bin", "qemu-io -c 'write -s h.bin 0 512' a.raw",
        "qemu-io -f raw -c 'write -s h.bin 0 512' a.raw", "qemu-img info a.raw", "qemu-img resize b.raw 1M",
        "qemu-img create -q b.raw 1M", "qemu-img resize b.raw 2M"]),
    "other_formats": (True, RAW + [line % dict(f=f) for f in ("vmdk", "vdi", "qcow", "vpc", "vhdx") for line in (
        "qemu-img create -f %(f)s x.%(f)s 8M", "qemu-img convert -f raw -O %(f)s a.raw y.%(f)s",
        "qemu-img compare -f raw -F %(f)s a.raw y.%(f)s", "qemu-img info x.%(f)s | grep -v -e 'cid:' -e filename",
        "qemu-img map --output=json y.%(f)s | sed 's/, .offset.*//; s/}.*//'", "qemu-img check x.%(f)s", "qemu-img check --output=json y.%(f)s",
        "qemu-img create -f %(f)s -o help", "qemu-img create -f %(f)s -o foo=1 z 1M", "qemu-img snapshot -l x.%(f)s",
        "qemu-img snapshot -c s x.%(f)s", "qemu-img amend -f %(f)s -o size=9M x.%(f)s",
        "qemu-io -f %(f)s -c 'write -P 3 5M 100k' -c 'read -P 3 5M 100k' -c 'write -z 5M 64k' -c 'read -P 0 5M 64k' -c length x.%(f)s")]),
}

EVEN_OUT = [
    (r'\d\d\.\d\d sec \([\d.e+]+ \w+/sec and [\d.]+ ops/sec\)', 'TIME'),
    (r'^(\d+,\d+),[\d:.]+,[\d.]+,[\d.]+$', r'\1,TIME'),
    (r'completed in [\d.]+ seconds', 'completed in TIME'),
    (r'disk size: .*', 'disk size: N'),
    (r'"actual-size": \d+', '"actual-size": N'),
    (r'"date-n?sec": \d+', '"date": N'),
    (r'\d{4}-\d\d-\d\d \d\d:\d\d:\d\d', 'DATE'),
    # where a new cluster goes is each program's choice
    (r'\d+\.\d\d% fragmented', 'N% fragmented'),
    (r'"fragmented-clusters": \d+,\n\s*', ''),
    (r'#block\d+', '#block'),
    (r'; did you mean .*', ''),
    (r'\nDid you mean .*', ''),
    # the terminal's own line: chunk sizes decide how many steps are shown
    (r'    \(\d+\.\d\d/100%\)\r(?!\n)', ''),
    (r"-95 \((Operation not supported)\)", r"\1"),
    # QEMU opens, and warns, twice
    (r"(WARNING: Image format.*\n.*\n.*\n)\1", r"\1"),
    # ours adds who holds a lock
    (r'\nIt is in use by process .*', ''),
    (r"\nThe protocol level may support further options\.\nSpecify the target filename to include those options\.", ""),
]


def even_out(text):
    for pattern, replacement in EVEN_OUT:
        text = re.sub(pattern, replacement, text, flags=re.M)
    return text


def run_lines(lines, path):
    directory = tempfile.mkdtemp(prefix="vmm-img-")
    environment = dict(os.environ, PATH=path + ":" + os.environ["PATH"], LC_ALL="C", TZ="UTC")
    results = []
    try:
        for line in lines:
            for _ in range(20):
                done = subprocess.run(["bash", "-c", line], cwd=directory, env=environment, stdin=subprocess.DEVNULL,
                                      capture_output=True, timeout=120)
                # On a busy machine qemu-img cannot time its key derivation and gives up before it has done anything.
                if b"Unable to get accurate CPU usage" not in done.stderr:
                    break
            results.append((line, done.returncode, even_out(done.stdout.decode(errors="replace")),
                            even_out(done.stderr.decode(errors="replace"))))
    finally:
        shutil.rmtree(directory)
    return results


def programs_on_path():
    directory = tempfile.mkdtemp(prefix="vmm-path-")
    for name in ("img", "io"):
        os.symlink(os.path.join(BIN, "vmm-" + name), os.path.join(directory, "qemu-" + name))
    return directory


def scenario(name):
    needs_qcow2, lines = SCENARIOS[name]
    ours_path = programs_on_path()
    try:
        ours, theirs = run_lines(lines, ours_path), run_lines(lines, "/usr/bin")
    finally:
        shutil.rmtree(ours_path)
    bad = 0
    for mine, other in zip(ours, theirs):
        if mine != other:
            bad += 1
            print("$ %s" % mine[0])
            for label, one in (("ours", mine), ("qemu", other)):
                print("  %s: status %d\n    out %r\n    err %r" % (label, one[1], one[2], one[3]))
    print("%s: %d command lines, %d differ" % (name, len(lines), bad))
    return 1 if bad else 0


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: img_tools.py CASE   (%s)" % " ".join(SCENARIOS))
    if not shutil.which("qemu-img") or not shutil.which("qemu-io"):
        print("qemu-img or qemu-io is not installed")
        return SKIPPED
    if not os.path.exists(os.path.join(BIN, "vmm-img")):
        print("VMM_BIN_DIR does not hold vmm-img")
        return 1
    return scenario(sys.argv[1])


if __name__ == "__main__":
    sys.exit(main())
