// The parts an initrd is made of: for each format, where the part that begins at an offset ends.
#pragma once
#include "firmware/loader/file_source.h"

#include <span>

namespace vmm::firmware {

// Looks at a file piece by piece.
class PartReader {
public:
    static constexpr std::size_t max_view = 64 << 10, magic_view = 16;

    explicit PartReader(FileSource const& file) : file_(file) {}
    // The next `count` (at most max_view) bytes from `offset` on, fewer at the end of the file; valid until the next
    // call.
    Result<std::span<std::uint8_t const>> at(std::uint64_t offset, std::size_t count);
    std::uint64_t size() const { return file_.size(); }
    // The error of a part of the format that does not end within the file, or whose content is impossible.
    Error cut_off(char const* format) const;
    Error damaged(char const* format, std::uint64_t offset) const;

private:
    FileSource const& file_;
    std::uint64_t start_ = 0;
    Bytes window_;
};

// The offset behind the part that begins at `start` with the format's magic. Where only decompressing would tell (lzma,
// large gzip data), the end of the file.
Result<std::uint64_t> cpio_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> gzip_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> bzip2_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> lzma_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> xz_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> lzo_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> lz4_end(PartReader& reader, std::uint64_t start);
Result<std::uint64_t> zstd_end(PartReader& reader, std::uint64_t start);

} // namespace vmm::firmware
