// Small ELF files for loader tests.
#pragma once
#include "firmware/loader/file_source.h"
#include "vmm/base/endian.h"

#include <cstring>

namespace vmm::firmware {

// One PT_LOAD of `code` at `physical` (virtual address 0xffffffff80000000 above it for 64-bit), 0x100 zero bytes after
// it; a PVH note with `pvh_entry` unless that is 0.
inline Bytes elf(bool is64, std::uint64_t physical, Bytes const& code, std::uint64_t entry,
                 std::uint32_t pvh_entry = 0) {
    std::uint32_t const header = is64 ? 64 : 52, program = is64 ? 56 : 32;
    std::uint32_t const note_at = header + 2 * program, code_at = note_at + 20;
    Bytes b(code_at);
    std::memcpy(b.data(),
                "\x7f"
                "ELF",
                4);
    b[4] = is64 ? 2 : 1, b[5] = 1, b[6] = 1;
    store_le(&b[16], std::uint16_t(2));
    store_le(&b[18], std::uint16_t(is64 ? 62 : 3));
    auto word = [&](std::uint32_t at, std::uint64_t v) {
        if (is64)
            store_le(&b[at], v);
        else
            store_le(&b[at], std::uint32_t(v));
    };
    word(24, entry);
    word(is64 ? 32 : 28, header);
    store_le(&b[is64 ? 54 : 42], std::uint16_t(program));
    store_le(&b[is64 ? 56 : 44], std::uint16_t(pvh_entry ? 2 : 1));
    auto segment = [&](std::uint32_t at, std::uint32_t type, std::uint64_t offset, std::uint64_t size,
                       std::uint64_t memory) {
        store_le(&b[at], type);
        if (is64) {
            store_le(&b[at + 8], offset), store_le(&b[at + 16], physical + 0xffffffff80000000);
            store_le(&b[at + 24], physical), store_le(&b[at + 32], size), store_le(&b[at + 40], memory);
        } else {
            store_le(&b[at + 4], std::uint32_t(offset)), store_le(&b[at + 8], std::uint32_t(physical));
            store_le(&b[at + 12], std::uint32_t(physical)), store_le(&b[at + 16], std::uint32_t(size));
            store_le(&b[at + 20], std::uint32_t(memory));
        }
    };
    segment(header, 1, code_at, code.size(), code.size() + 0x100);
    segment(header + program, 4, note_at, 20, 20);
    store_le(&b[note_at], std::uint32_t(4)), store_le(&b[note_at + 4], std::uint32_t(4));
    store_le(&b[note_at + 8], std::uint32_t(18));
    std::memcpy(&b[note_at + 12], "Xen", 4);
    store_le(&b[note_at + 16], pvh_entry);
    b.insert(b.end(), code.begin(), code.end());
    return b;
}

inline void put(Bytes& b, std::initializer_list<std::uint32_t> words) {
    for (std::uint32_t w : words) {
        b.resize(b.size() + 4);
        store_le(&b[b.size() - 4], w);
    }
}

} // namespace vmm::firmware
