// What a mutated image needs so that the fields behind its checksums and slow key derivations are reached.
#pragma once
#include "block/formats/vhdx/header.h"
#include "tests/fuzz/block/sparse_file.h"

#include <string_view>
#include <vector>

namespace vmm::block::fuzz {

// Puts the checksum of the structure right that begins with `signature` at `offset`.
inline void seal(SparseBytes& file, std::uint64_t offset, std::size_t length, std::string_view signature) {
    std::vector<std::uint8_t> bytes(length);
    file.read(offset, bytes);
    if (std::memcmp(bytes.data(), signature.data(), signature.size()) != 0) return;
    store_le<std::uint32_t>(bytes.data() + 4, vhdx::checksum_of(bytes));
    file.write(offset, ConstBytes(bytes).first(8));
}

inline void seal_vhdx(SparseBytes& file) {
    if (file.size() < (512 << 10)) return;
    for (std::uint64_t offset : vhdx::region_offsets) seal(file, offset, vhdx::region_table_bytes, "regi");
    for (std::uint64_t offset : vhdx::header_offsets) {
        seal(file, offset, vhdx::header_bytes, "head");
        std::vector<std::uint8_t> header(vhdx::header_bytes), entry(64);
        file.read(offset, header);
        std::uint64_t const log = load_le<std::uint64_t>(header.data() + 72);
        // The first entries are enough; an entry that wraps round is left as it is.
        for (std::uint64_t at = log; log < file.size() && at < log + 16 * 4096; at += 4096) {
            file.read(at, entry);
            std::uint32_t const length = load_le<std::uint32_t>(entry.data() + 8);
            if (length >= 64 && length <= 1 << 20) seal(file, at, length, "loge");
        }
    }
}

// A mutated iteration count may ask for minutes: it becomes the one of the seeds.
inline void hurry_luks(SparseBytes& file) {
    be32 const enough{1000u};
    auto limit = [&](std::uint64_t offset) {
        std::array<std::uint8_t, 4> count{};
        file.read(offset, count);
        if (field_at<be32>(count.data()) > enough)
            file.write(offset, ConstBytes(reinterpret_cast<std::uint8_t const*>(&enough), sizeof enough));
    };
    if (file.size() < 592) return;
    limit(164);
    for (std::uint64_t slot = 0; slot < 8; ++slot) limit(208 + slot * 48 + 4);
}

inline void amend(std::string_view format, SparseBytes& file) {
    if (format == "vhdx") seal_vhdx(file);
    if (format == "luks") hurry_luks(file);
}

} // namespace vmm::block::fuzz
