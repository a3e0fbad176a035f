#include "block/formats/cow/cow.h"

#include "block/formats/cow/header.h"
#include "block/formats/mapped/mapped_image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block {

namespace {

using namespace cow;
constexpr std::uint64_t sector_bytes = 512;
constexpr std::uint64_t group_sectors = 512; // runs of equal sectors are looked for in groups of this many

class CowImage final : public MappedImage {
public:
    CowImage(FormatOpenArgs args, Layout layout, std::vector<std::uint8_t> bitmap)
        : MappedImage(std::move(args), "cow", layout.size, 0), layout_(std::move(layout)), bitmap_(std::move(bitmap)) {}
    bool read_only() const override { return true; }
    BackingReference backing_reference() const override { return {layout_.backing, "raw"}; }

protected:
    // A unit is a run of sectors that are all here or all below.
    Result<std::optional<Mapping>> find(std::uint64_t offset) override {
        std::uint64_t sector = offset / sector_bytes, group = sector / group_sectors * group_sectors;
        std::uint64_t limit = std::min(group + group_sectors, div_ceil(size_, sector_bytes));
        bool here = is_here(sector);
        std::uint64_t first = sector, end = sector + 1;
        while (first > group && is_here(first - 1) == here) --first;
        while (end < limit && is_here(end) == here) ++end;
        Mapping at;
        at.kind = here ? Mapping::Kind::data : Mapping::Kind::absent;
        at.start = first * sector_bytes;
        at.length = std::min(end * sector_bytes, size_) - at.start;
        at.device = file_.get();
        at.host_offset = layout_.data_offset + at.start;
        if (here && at.host_offset + at.length > file_->size_bytes())
            return Error(fmt::format("'{}': sector {} lies beyond the end of the file", file_name_, end - 1), EIO);
        return at;
    }

private:
    bool is_here(std::uint64_t sector) const { return bitmap_[sector / 8] >> (sector % 8) & 1; }
    Layout layout_;
    std::vector<std::uint8_t> bitmap_;
};

int probe(ConstBytes header, std::string_view) { return is_cow(header) ? 100 : 0; }

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    CO_TRY(require_read_only(args, "cow"));
    std::vector<std::uint8_t> header(std::min<std::uint64_t>(args.file->size_bytes(), max_header_bytes));
    CO_TRY(co_await read_bytes(*args.file, 0, header));
    CO_TRY_ASSIGN(Layout layout, decode(header, args.filename));
    std::uint64_t const bitmap_bytes = div_ceil<std::uint64_t>(div_ceil(layout.size, sector_bytes), 8);
    CO_TRY(check_inside_file(*args.file, layout.bitmap_offset, bitmap_bytes, "cow bitmap (size)"));
    std::vector<std::uint8_t> bitmap(bitmap_bytes);
    CO_TRY(co_await read_bytes(*args.file, layout.bitmap_offset, bitmap));
    co_return std::make_unique<CowImage>(std::move(args), std::move(layout), std::move(bitmap));
}

} // namespace

Format cow_format() { return {.name = "cow", .probe = probe, .open = open, .supports_backing = true}; }

} // namespace vmm::block
