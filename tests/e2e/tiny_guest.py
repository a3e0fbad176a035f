"""The smallest multiboot program: it says one letter on the debug console (port 0xe9) and halts with interrupts off."""
import re
import struct

LETTER = b"!"
BASE = 0x100000
MIB = 1 << 20


def tiny_guest(path, touch_mib=0):
    """Writes the program to `path`; with `touch_mib` it writes a word to each page of so much RAM from 16 MiB first."""
    code = b""
    if touch_mib:
        code = (b"\xbf" + struct.pack("<I", 16 << 20)                       # mov edi, 16 MiB
                + b"\xb9" + struct.pack("<I", touch_mib << 20 >> 12)          # mov ecx, pages
                + b"\x89\x0f\x81\xc7" + struct.pack("<I", 4096)               # again: mov [edi], ecx; add edi, 4096
                + b"\xe2\xf6")                                                # loop again
    code += b"\xb0" + LETTER + b"\xe6\xe9" + b"\xfa\xf4\xeb\xfc"            # mov al; out 0xe9; stop: cli; hlt; jmp stop
    magic, flags = 0x1BADB002, 1 << 16
    header_size = 32
    size = header_size + len(code)
    header = struct.pack("<8I", magic, flags, -(magic + flags) & 0xFFFFFFFF, BASE, BASE, BASE + size, BASE + size, BASE + header_size)
    with open(path, "wb") as file:
        file.write(header + code)
    return path


def resident(pid):
    """(resident bytes of the RAM of the guest, of all else) of a process with at least 512 MiB for the guest."""
    ram = rest = size = 0
    with open(f"/proc/{pid}/smaps", encoding="utf-8") as maps:
        for line in maps:
            if area := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
                size = int(area[2], 16) - int(area[1], 16)
            elif found := re.match(r"Rss: +(\d+) kB", line):
                if size >= 512 * MIB:
                    ram += int(found[1]) * 1024
                else:
                    rest += int(found[1]) * 1024
    return ram, rest
