#include "vmm/machine/pc/smm_memory.h"

#include <utility>

namespace vmm {

SmmMemory::SmmMemory(AddressSpace& normal, RamBlock& ram, std::function<bool()> enabled)
    : normal_(normal), ram_(ram), enabled_(std::move(enabled)), listener_(normal.add_listener([this] { refresh(); })) {}

SmmMemory::~SmmMemory() { normal_.remove_listener(listener_); }

void SmmMemory::refresh() {
    AddressSpace::Batch batch(space_);
    for (MappingId id : mappings_) space_.unmap(id);
    mappings_.clear();
    FlatView const& view = normal_.view();
    auto show = [this](std::vector<FlatRange> const& pieces, MapFor use) {
        for (FlatRange const& piece : pieces)
            mappings_.push_back(
                space_.map({.name = "memory", .range = piece.range, .backing = piece.backing, .use = use}));
    };
    show(view.reads, MapFor::reads);
    show(view.writes, MapFor::writes);
    if (enabled_() && ram_.size() >= base + size)
        mappings_.push_back(space_.map({.name = "smram",
                                        .range = AddressRange::of(base, size),
                                        .backing = Backing::of_ram(ram_, base),
                                        .priority = 1}));
}

} // namespace vmm
