#include "block/nbd/export.h"

#include "block/core/chain.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::block::nbd {

namespace {

constexpr std::string_view allocation_context = "base:allocation", depth_context = "qemu:allocation-depth",
                           bitmap_prefix = "qemu:dirty-bitmap:";

Result<DirtyBitmaps*> find_bitmap(Image& top, std::string const& name) {
    for (Image* layer = &top; layer; layer = layer->backing()) {
        DirtyBitmaps* owner = layer->capabilities().bitmaps;
        if (!owner) continue;
        for (BitmapInfo const& one : owner->bitmaps()) {
            if (one.name != name) continue;
            if (one.in_use) return error("Bitmap '{}' is inconsistent and cannot be used", name);
            return owner;
        }
    }
    return error("Bitmap '{}' is not found", name);
}

} // namespace

Result<std::unique_ptr<Export>> Export::create(Image& image, ExportSettings settings) {
    if (settings.name.size() > max_string_bytes) return error("export name '{}' too long", settings.name);
    if (settings.description.size() > max_string_bytes)
        return error("export description '{}' too long", settings.description);
    std::uint64_t whole = image.size_bytes();
    if (settings.offset > whole) return error("Invalid offset '{}'", settings.offset);
    constexpr std::uint64_t sector_bytes = 512;
    std::uint64_t const stored = settings.size.value_or(whole - settings.offset);
    if (stored > whole - settings.offset)
        return error("The export would reach {} bytes beyond the end of the image", stored - (whole - settings.offset));
    std::uint64_t const size = settings.size.value_or(align_up(stored, sector_bytes));
    settings.read_only = settings.read_only || image.read_only();
    std::unique_ptr<Export> made(new Export(image, std::move(settings), size, stored));
    auto offer = [&](std::string name, DirtyBitmaps* owner) {
        made->contexts_.push_back(std::move(name));
        made->bitmap_owners_.push_back(owner);
    };
    offer(std::string(allocation_context), nullptr);
    if (made->settings_.allocation_depth) offer(std::string(depth_context), nullptr);
    for (std::string const& name : made->settings_.bitmaps)
        offer(std::string(bitmap_prefix) + name, TRY(find_bitmap(image, name)));
    return made;
}

std::uint16_t Export::flags(bool structured_replies) const {
    unsigned flags = flag_has_flags | flag_send_flush | flag_send_fua | flag_send_cache;
    if (settings_.read_only)
        flags |= flag_read_only;
    else
        flags |= flag_send_trim | flag_send_write_zeroes | flag_send_fast_zero;
    if (settings_.multi_conn) flags |= flag_can_multi_conn;
    if (structured_replies) flags |= flag_send_df;
    return std::uint16_t(flags);
}

Task<Result<void>> Export::read(std::uint64_t offset, Bytes to) {
    std::uint64_t const n = inside(offset, to.size());
    std::ranges::fill(to.subspan(n), 0);
    return read_bytes(image_, settings_.offset + std::min(offset, stored_), to.first(n));
}
Task<Result<void>> Export::write(std::uint64_t offset, ConstBytes from, Durability durability) {
    std::uint64_t const n = inside(offset, from.size());
    if (n < from.size() && !is_zero(from.subspan(n))) co_return Error(std::strerror(ENOSPC), ENOSPC);
    Result<void> result =
        co_await write_bytes(image_, settings_.offset + std::min(offset, stored_), from.first(n), durability);
    co_return result;
}
Task<Result<void>> Export::flush() { return image_.flush(); }
Task<Result<void>> Export::trim(std::uint64_t offset, std::uint64_t length) {
    return discard(image_, settings_.offset + std::min(offset, stored_), inside(offset, length));
}
Task<Result<void>> Export::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    return block::write_zeroes(image_, settings_.offset + std::min(offset, stored_), inside(offset, length), flags);
}

Task<Result<Export::State>> Export::state_at(unsigned id, std::uint64_t offset, std::uint64_t length) {
    if (offset >= stored_) co_return State{length, contexts_[id] == allocation_context ? state_hole | state_zero : 0};
    length = inside(offset, length);
    std::uint64_t at = settings_.offset + offset;
    if (DirtyBitmaps* owner = bitmap_owners_[id]) {
        std::string name = contexts_[id].substr(bitmap_prefix.size());
        CO_TRY_ASSIGN(DirtyBitmaps::Stretch stretch, co_await owner->bitmap_status(name, at));
        co_return State{std::min(stretch.length, length), stretch.dirty ? state_dirty : 0};
    }
    CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(image_, at, length));
    std::uint64_t covered = std::min(status.length, length);
    if (contexts_[id] == depth_context) co_return State{covered, status.allocated ? status.depth + 1 : 0};
    co_return State{covered, (status.data ? 0 : state_hole) | (status.zero ? state_zero : 0)};
}

Task<Result<std::vector<Extent>>> Export::extents(unsigned id, std::uint64_t offset, std::uint64_t length,
                                                  std::size_t max_extents) {
    std::vector<Extent> found;
    while (length > 0) {
        CO_TRY_ASSIGN(State state, co_await state_at(id, offset, length));
        VMM_ASSERT(state.length > 0);
        if (!found.empty() && found.back().flags == state.flags)
            found.back().length = found.back().length + std::uint32_t(state.length);
        else if (found.size() == max_extents)
            break;
        else
            found.push_back(Extent{std::uint32_t(state.length), state.flags});
        offset += state.length;
        length -= state.length;
    }
    co_return std::move(found);
}

} // namespace vmm::block::nbd
