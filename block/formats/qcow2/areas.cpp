#include "block/formats/qcow2/areas.h"

#include "vmm/base/assert.h"

namespace vmm::block::qcow2 {

std::string_view area_name(Area area) {
    constexpr std::string_view names[] = {"qcow2_header",      "active L1 table",
                                          "active L2 table",   "refcount table",
                                          "refcount block",    "snapshot table",
                                          "inactive L1 table", "bitmap directory",
                                          "encryption header", "a cluster that two tables claim"};
    return names[std::size_t(area)];
}

void AreaMap::add(std::uint64_t offset, std::uint64_t bytes, Area area) {
    if (bytes == 0) return;
    for (std::uint64_t c = offset >> bits_; c <= (offset + bytes - 1) >> bits_; ++c) {
        if (clusters_.size() >= max_tracked) return;
        auto [found, added] = clusters_.try_emplace(c, area);
        if (!added) found->second = Area::disputed;
    }
}

void AreaMap::remove(std::uint64_t offset, std::uint64_t bytes, Area area) {
    if (bytes == 0) return;
    for (std::uint64_t c = offset >> bits_; c <= (offset + bytes - 1) >> bits_; ++c) {
        auto found = clusters_.find(c);
        if (found != clusters_.end() && found->second == area) clusters_.erase(found);
    }
}

std::optional<Area> AreaMap::conflict(std::uint64_t offset, std::uint64_t bytes, std::optional<Area> allowed) const {
    if (bytes == 0) return std::nullopt;
    for (std::uint64_t c = offset >> bits_; c <= (offset + bytes - 1) >> bits_; ++c) {
        auto found = clusters_.find(c);
        if (found != clusters_.end() && found->second != allowed) return found->second;
    }
    return std::nullopt;
}

} // namespace vmm::block::qcow2
