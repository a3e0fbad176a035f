#include "block/formats/cloop/cloop.h"

#include "block/formats/mapped/mapped_image.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <array>
#include <cerrno>

namespace vmm::block {

namespace {

constexpr std::string_view preamble = "#!/bin/sh\n#V2.0 Format\n";
constexpr std::uint32_t max_block_bytes = 64u << 20;
constexpr std::uint64_t max_blocks = 1u << 25; // an offset table of 256 MiB

// A shell script of 128 bytes that mounts the file it is in, then this.
struct Header {
    std::array<char, 128> script;
    be32 block_size;
    be32 block_count;
};
static_assert(sizeof(Header) == 136);

class CloopImage final : public MappedImage {
public:
    CloopImage(FormatOpenArgs args, std::uint32_t block_size, std::vector<be64> offsets)
        : MappedImage(std::move(args), "cloop", (offsets.size() - 1) * std::uint64_t(block_size), block_size),
          offsets_(std::move(offsets)) {}
    bool read_only() const override { return true; }
    Task<Result<FormatInfo>> format_info() override { co_return FormatInfo{}; }

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override {
        Mapping at;
        at.kind = Mapping::Kind::compressed;
        at.cookie = offset / unit_;
        at.start = at.cookie * unit_;
        at.length = unit_;
        return at;
    }
    Task<Result<void>> read_compressed(Mapping was, Bytes unit) override {
        AsyncLock lock = co_await reading_.lock(); // neighbours wait for the block they will find here
        if (cached_block_ != was.cookie) {
            std::uint64_t at = offsets_[was.cookie], size = offsets_[was.cookie + 1] - at;
            std::vector<std::uint8_t> packed(size);
            CO_TRY(co_await read_bytes(*file_, at, packed));
            cached_block_.reset();
            cached_.resize(unit_);
            CO_TRY(co_await inflate_on_pool(context_, DeflateKind::zlib, std::move(packed), cached_));
            cached_block_ = was.cookie;
        }
        std::copy_n(cached_.begin(), unit.size(), unit.begin());
        co_return Result<void>{};
    }

private:
    std::vector<be64> offsets_; // of each block and of the end, ascending
    AsyncMutex reading_;
    std::vector<std::uint8_t> cached_;
    std::optional<std::uint64_t> cached_block_;
};

int probe(ConstBytes header, std::string_view) {
    std::string_view text(reinterpret_cast<char const*>(header.data()), header.size());
    return text.starts_with(preamble) ? 2 : 0; // any shell script could say this
}

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    CO_TRY(require_read_only(args, "cloop"));
    Header h;
    CO_TRY(check_inside_file(*args.file, 0, sizeof h, "cloop header"));
    Bytes bytes(reinterpret_cast<std::uint8_t*>(&h), sizeof h);
    CO_TRY(co_await read_bytes(*args.file, 0, bytes));
    if (h.block_size == 0 || h.block_size % 512 || h.block_size > max_block_bytes)
        co_return error("Could not open '{}': cloop header field block_size is {}: must be a multiple of 512 up to {}",
                        args.filename, h.block_size.load(), max_block_bytes);
    if (h.block_count == 0 || h.block_count > max_blocks)
        co_return error("Could not open '{}': cloop header field num_blocks is {}: must be 1 to {}", args.filename,
                        h.block_count.load(), max_blocks);
    std::uint64_t const entries = h.block_count + std::uint64_t(1);
    CO_TRY(check_inside_file(*args.file, sizeof h, entries * 8, "cloop offset table (num_blocks)"));
    std::vector<be64> offsets(entries);
    Bytes table(reinterpret_cast<std::uint8_t*>(offsets.data()), offsets.size() * 8);
    CO_TRY(co_await read_bytes(*args.file, sizeof h, table));
    for (std::size_t i = 0; i + 1 < offsets.size(); ++i)
        if (offsets[i + 1] < offsets[i] || offsets[i + 1] - offsets[i] > 2 * std::uint64_t(h.block_size))
            co_return error("Could not open '{}': cloop offset {} is {}, the one before it {}: not in order or too far",
                            args.filename, i + 1, offsets[i + 1].load(), offsets[i].load());
    CO_TRY(check_inside_file(*args.file, offsets.front(), offsets.back() - offsets.front(), "last cloop block"));
    std::uint32_t block_size = h.block_size;
    co_return std::make_unique<CloopImage>(std::move(args), block_size, std::move(offsets));
}

} // namespace

Format cloop_format() { return {.name = "cloop", .probe = probe, .open = open}; }

} // namespace vmm::block
