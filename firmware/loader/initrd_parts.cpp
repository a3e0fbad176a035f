#include "firmware/loader/initrd_parts.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <isa-l/crc.h>
#include <isa-l/igzip_lib.h>

#include <algorithm>
#include <charconv>
#include <memory>
#include <optional>
#include <string_view>

namespace vmm::firmware {

namespace {

using Span = std::span<std::uint8_t const>;
constexpr std::size_t read_ahead = 4 * KiB;

std::uint32_t load_be32(Span bytes, std::size_t offset) { return byte_swap(load_le<std::uint32_t>(&bytes[offset])); }
std::uint16_t load_be16(Span bytes, std::size_t offset) { return byte_swap(load_le<std::uint16_t>(&bytes[offset])); }

// Looks from the end of the file back to `start` for the last place where `mark_length(bytes from there)` is not 0;
// the offset behind that mark.
template <class MarkLength>
Result<std::optional<std::uint64_t>> last_mark(PartReader& reader, std::uint64_t start, std::size_t least,
                                               MarkLength mark_length) {
    constexpr std::size_t longest = 16;
    std::uint64_t done = reader.size(); // marks that begin here or later have been looked for
    while (done > start) {
        std::uint64_t const from = done - std::min<std::uint64_t>(done - start, PartReader::max_view - longest);
        Span const bytes = TRY(reader.at(from, std::size_t(done - from) + longest));
        for (std::size_t i = std::min<std::size_t>(bytes.size(), done - from); i-- > 0;) {
            if (bytes.size() - i < least) continue;
            if (std::size_t const length = mark_length(bytes.subspan(i))) return std::optional(from + i + length);
        }
        done = from;
    }
    return std::optional<std::uint64_t>();
}

} // namespace

Result<Span> PartReader::at(std::uint64_t offset, std::size_t count) {
    VMM_ASSERT(count <= max_view);
    if (offset >= size()) return Span();
    std::uint64_t const have = start_ + window_.size(), left = size() - offset;
    count = std::size_t(std::min<std::uint64_t>(count, left));
    if (offset < start_ || offset + count > have) {
        window_.resize(std::size_t(std::min<std::uint64_t>(std::max(count, read_ahead), left)));
        start_ = offset;
        TRY(file_.read_at(offset, window_));
    }
    return Span(window_).subspan(std::size_t(offset - start_), count);
}

Error PartReader::cut_off(char const* format) const {
    return error("initrd '{}' is cut off: its {} does not end within its {} bytes", file_.path(), format, size());
}

Error PartReader::damaged(char const* format, std::uint64_t offset) const {
    return error("initrd '{}' is damaged: its {} makes no sense from offset {} on", file_.path(), format, offset);
}

// Documentation/driver-api/early-userspace/buffer-format.rst. An archive without trailer is one, too.
Result<std::uint64_t> cpio_end(PartReader& reader, std::uint64_t start) {
    constexpr std::size_t header_size = 110, magic_size = 5, file_size_at = 54, name_size_at = 94;
    constexpr std::string_view magic = "07070", trailer("TRAILER!!!\0", 11);
    auto number = [](Span header, std::size_t at) -> std::optional<std::uint32_t> {
        char const* const text = reinterpret_cast<char const*>(&header[at]);
        std::uint32_t value = 0;
        auto const parsed = std::from_chars(text, text + 8, value, 16);
        return parsed.ptr == text + 8 ? std::optional(value) : std::nullopt;
    };
    for (std::uint64_t at = start;;) {
        Span const header = TRY(reader.at(at, header_size));
        if (header.size() < magic_size || !std::equal(magic.begin(), magic.end(), header.begin())) {
            bool const begun = !header.empty() && header[0] == '0' && header.size() < magic_size;
            return begun ? Result<std::uint64_t>(reader.cut_off("cpio archive")) : at;
        }
        if (header.size() < header_size) return reader.cut_off("cpio archive");
        auto const file_size = number(header, file_size_at), name_size = number(header, name_size_at);
        if (!file_size || !name_size) return reader.damaged("cpio archive", at);
        Span const name = TRY(reader.at(at + header_size, std::min<std::size_t>(*name_size, trailer.size())));
        bool const last = *name_size == trailer.size() &&
                          std::ranges::equal(name, trailer, {}, {}, [](char c) { return std::uint8_t(c); });
        std::uint64_t const data = align_up<std::uint64_t>(at + header_size + *name_size, 4), end = data + *file_size;
        if (end > reader.size() + (*file_size == 0 ? 3 : 0)) return reader.cut_off("cpio archive");
        at = std::min(align_up<std::uint64_t>(end, 4), reader.size());
        if (last) return at;
    }
}

// RFC 1952. Inflating is all that tells where it ends; that is done for what takes a few ten milliseconds at most.
Result<std::uint64_t> gzip_end(PartReader& reader, std::uint64_t start) {
    constexpr std::uint64_t inflated_up_to = 8 * MiB;
    if (reader.size() - start > inflated_up_to) return reader.size();
    auto const state = std::make_unique<inflate_state>();
    isal_inflate_init(state.get());
    state->crc_flag = ISAL_GZIP;
    Bytes output(256 * KiB);
    for (std::uint64_t at = start;;) {
        Span const input = TRY(reader.at(at, PartReader::max_view));
        state->next_in = const_cast<std::uint8_t*>(input.data());
        state->avail_in = std::uint32_t(input.size());
        do {
            state->next_out = output.data();
            state->avail_out = std::uint32_t(output.size());
            if (isal_inflate(state.get()) != ISAL_DECOMP_OK) return reader.damaged("gzip data", start);
        } while (state->block_state != ISAL_BLOCK_FINISH && state->avail_out == 0);
        at += input.size() - state->avail_in;
        if (state->block_state == ISAL_BLOCK_FINISH) return at - std::uint64_t(std::max(state->read_in_length, 0)) / 8;
        if (input.empty()) return reader.cut_off("gzip data");
    }
}

// The end of a bzip2 stream is a mark of 48 bits (the digits of the square root of pi) and a CRC of 32, at any bit.
Result<std::uint64_t> bzip2_end(PartReader& reader, std::uint64_t start) {
    constexpr std::uint64_t end_mark = 0x177245385090, mask = (std::uint64_t(1) << 48) - 1;
    auto mark_length = [](Span bytes) -> std::size_t {
        std::uint64_t bits = 0;
        for (std::size_t i = 0; i < 7; ++i) bits = bits << 8 | bytes[i];
        for (unsigned shift = 0; shift < 8; ++shift)
            if ((bits >> (8 - shift) & mask) == end_mark) {
                std::size_t const length = shift == 0 ? 10 : 11;
                return length <= bytes.size() ? length : 0;
            }
        return 0;
    };
    auto const end = TRY(last_mark(reader, start, 10, mark_length));
    return end ? Result<std::uint64_t>(*end) : reader.cut_off("bzip2 data");
}

Result<std::uint64_t> lzma_end(PartReader& reader, std::uint64_t) { return reader.size(); }

// "The .xz File Format", 2.1.2: CRC32, backward size, flags, "YZ".
Result<std::uint64_t> xz_end(PartReader& reader, std::uint64_t start) {
    auto mark_length = [](Span bytes) -> std::size_t {
        bool const footer = bytes[10] == 'Y' && bytes[11] == 'Z' &&
                            crc32_gzip_refl(0, &bytes[4], 6) == load_le<std::uint32_t>(bytes.data());
        return footer ? 12 : 0;
    };
    auto const end = TRY(last_mark(reader, start, 12, mark_length));
    return end ? Result<std::uint64_t>(*end) : reader.cut_off("xz data");
}

// The header of lzop's format: sizes in it depend on its version and flags.
Result<std::uint64_t> lzo_end(PartReader& reader, std::uint64_t start) {
    constexpr std::size_t longest_header = 9 + 6 + 2 + 4 + 4 + 12 + 1 + 255 + 4;
    constexpr std::uint32_t data_adler = 1, packed_adler = 2, data_crc = 0x100, packed_crc = 0x200, filtered = 0x800;
    Span const header = TRY(reader.at(start, longest_header));
    if (header.size() < 40) return reader.cut_off("lzo data");
    bool const modern = load_be16(header, 9) >= 0x940;
    std::size_t at = modern ? 17 : 14; // the flags
    std::uint32_t const flags = load_be32(header, at);
    at += 4 + (flags & filtered ? 4 : 0) + (modern ? 12 : 8);
    at += 1 + header[at] + 4; // name, checksum
    for (std::uint64_t block = start + at;;) {
        Span const sizes = TRY(reader.at(block, 8));
        if (sizes.size() < 4) return reader.cut_off("lzo data");
        std::uint32_t const plain = load_be32(sizes, 0);
        if (plain == 0) return block + 4;
        if (sizes.size() < 8) return reader.cut_off("lzo data");
        std::uint32_t const packed = load_be32(sizes, 4);
        if (packed > plain) return reader.damaged("lzo data", block);
        std::uint32_t checks = (flags & data_adler ? 4 : 0) + (flags & data_crc ? 4 : 0);
        if (packed < plain) checks += (flags & packed_adler ? 4 : 0) + (flags & packed_crc ? 4 : 0);
        block += 8 + checks + packed;
    }
}

// lz4's legacy format, the only one Linux reads: blocks of at most 8 MiB of data behind their sizes, to the end.
Result<std::uint64_t> lz4_end(PartReader& reader, std::uint64_t start) {
    constexpr std::uint32_t magic = 0x184c2102, most = 8 * MiB + 8 * MiB / 255 + 16;
    for (std::uint64_t at = start;;) {
        Span const bytes = TRY(reader.at(at, 4));
        if (bytes.empty()) return at;
        if (bytes.size() < 4) return bytes[0] == 0 ? Result<std::uint64_t>(at) : reader.cut_off("lz4 data");
        std::uint32_t const size = load_le<std::uint32_t>(bytes.data());
        if (size == magic) {
            at += 4;
            continue;
        }
        if (size == 0 || size > most) return at; // another part
        if (size > reader.size() - at - 4) return reader.cut_off("lz4 data");
        at += 4 + size;
    }
}

// RFC 8878, 3.1.1: one frame.
Result<std::uint64_t> zstd_end(PartReader& reader, std::uint64_t start) {
    constexpr std::uint8_t single_segment = 1 << 5, has_checksum = 1 << 2;
    constexpr std::uint64_t dictionary_sizes[] = {0, 1, 2, 4}, content_sizes[] = {0, 2, 4, 8};
    Span const head = TRY(reader.at(start, 5));
    if (head.size() < 5) return reader.cut_off("zstd data");
    std::uint8_t const descriptor = head[4];
    bool const single = (descriptor & single_segment) != 0;
    unsigned const content = descriptor >> 6;
    std::uint64_t at = start + 5 + (single ? 0 : 1) + dictionary_sizes[descriptor & 3] +
                       (single && content == 0 ? 1 : content_sizes[content]);
    for (bool last = false; !last;) {
        Span const header = TRY(reader.at(at, 3));
        if (header.size() < 3) return reader.cut_off("zstd data");
        std::uint32_t const bits = header[0] | header[1] << 8 | std::uint32_t(header[2]) << 16;
        last = (bits & 1) != 0;
        unsigned const type = bits >> 1 & 3; // raw, run length, compressed, reserved
        if (type == 3) return reader.damaged("zstd data", at);
        at += 3 + (type == 1 ? 1 : bits >> 3);
    }
    if (descriptor & has_checksum) at += 4;
    return at <= reader.size() ? Result<std::uint64_t>(at) : reader.cut_off("zstd data");
}

} // namespace vmm::firmware
