#include "vmm/tcg/engine/lockstep_memory.h"

#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace vmm::tcg {

Result<std::unique_ptr<ShadowMemory>> ShadowMemory::create(CpuBus& original) {
    std::unique_ptr<ShadowMemory> memory(new ShadowMemory(original));
    TRY(memory->follow_map());
    return memory;
}

Result<RamBlock*> ShadowMemory::copy_of(RamBlock& original) {
    for (Twin const& twin : twins_)
        if (twin.original == &original) return twin.copy.get();
    twins_.push_back({&original, TRY(RamBlock::create(original.name() + " (shadow)", original.size()))});
    return twins_.back().copy.get();
}

Result<void> ShadowMemory::follow_map() {
    FlatView const& view = original_.memory().view();
    if (shown_ == &view) return {};
    AddressSpace::Batch batch(space_);
    for (MappingId id : mappings_) space_.unmap(id);
    mappings_.clear();
    auto show = [&](std::vector<FlatRange> const& pieces, MapFor use) -> Result<void> {
        for (FlatRange const& piece : pieces) {
            if (!piece.backing.ram) continue;
            RamBlock* copy = TRY(copy_of(*piece.backing.ram));
            mappings_.push_back(space_.map({.name = copy->name(),
                                            .range = piece.range,
                                            .backing = Backing::of_ram(*copy, piece.backing.offset),
                                            .use = use}));
        }
        return {};
    };
    TRY(show(view.reads, MapFor::reads));
    TRY(show(view.writes, MapFor::writes));
    shown_ = &view;
    return {};
}

// Visits the pages that either side has touched, until `visit` says false.
void ShadowMemory::for_each_page(Twin const& twin, std::function<bool(std::uint64_t offset)> const& visit) {
    for (int fd : {twin.original->fd(), twin.copy->fd()}) {
        auto size = off_t(twin.original->size());
        for (off_t at = 0; at < size;) {
            off_t data = lseek(fd, at, SEEK_DATA);
            if (data < 0) break; // nothing but holes from here on
            off_t hole = std::min(size, lseek(fd, data, SEEK_HOLE));
            if (hole <= data) break;
            for (at = data; at < hole; at += page_size)
                if (!visit(std::uint64_t(at))) return;
        }
    }
}

void ShadowMemory::copy_contents() {
    for (Twin const& twin : twins_)
        for_each_page(twin, [&](std::uint64_t offset) {
            std::uint8_t const* from = twin.original->host() + offset;
            std::uint8_t* to = twin.copy->host() + offset;
            if (std::memcmp(to, from, page_size) != 0) {
                std::memcpy(to, from, page_size);
                twin.copy->written(offset, page_size);
            }
            return true;
        });
}

static std::string difference_at(RamBlock const& original, RamBlock const& copy, std::uint64_t offset) {
    return fmt::format("{}+{:#x}: {:02x} in the original, {:02x} in the copy", original.name(), offset,
                       original.host()[offset], copy.host()[offset]);
}

std::optional<std::string> ShadowMemory::find_difference() const {
    std::optional<std::string> found;
    for (Twin const& twin : twins_)
        for_each_page(twin, [&](std::uint64_t offset) {
            std::uint8_t const *a = twin.original->host() + offset, *b = twin.copy->host() + offset;
            if (!found && std::memcmp(a, b, page_size) != 0)
                found = difference_at(*twin.original, *twin.copy,
                                      offset + std::uint64_t(std::mismatch(a, a + page_size, b).first - a));
            return !found;
        });
    return found;
}

std::optional<std::string> ShadowMemory::find_difference(std::uint8_t const* at, unsigned size) const {
    for (Twin const& twin : twins_) {
        std::uint64_t offset = std::uint64_t(at - twin.copy->host());
        if (at < twin.copy->host() || offset + size > twin.copy->size()) continue;
        std::uint8_t const* original = twin.original->host() + offset;
        auto [mine, theirs] = std::mismatch(at, at + size, original);
        if (mine != at + size) return difference_at(*twin.original, *twin.copy, offset + std::uint64_t(mine - at));
        return std::nullopt;
    }
    VMM_UNREACHABLE();
}

} // namespace vmm::tcg
