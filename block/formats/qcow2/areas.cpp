#include "block/formats/qcow2/areas.h"

#include "vmm/base/assert.h"

#include <algorithm>

namespace vmm::block::qcow2 {

std::string_view area_name(Area area) {
    constexpr std::string_view names[] = {"qcow2_header",
                                          "active L1 table",
                                          "active L2 table",
                                          "refcount table",
                                          "refcount block",
                                          "snapshot table",
                                          "inactive L1 table",
                                          "bitmap directory",
                                          "encryption header",
                                          "inactive L2 table",
                                          "a cluster that two tables claim"};
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

void AreaMap::set_inactive_l2(std::span<std::uint64_t const> offsets) {
    inactive_l2_.clear();
    for (std::uint64_t offset : offsets.first(std::min(offsets.size(), max_tracked)))
        inactive_l2_.insert(offset >> bits_);
}

std::optional<Area> AreaMap::find(std::uint64_t offset, std::uint64_t bytes, std::optional<Area> allowed,
                                  AreaSet among) const {
    if (bytes == 0) return std::nullopt;
    bool const inactive = !inactive_l2_.empty() && (among & area_bit(Area::inactive_l2));
    for (std::uint64_t c = offset >> bits_; c <= (offset + bytes - 1) >> bits_; ++c) {
        auto found = clusters_.find(c);
        if (found != clusters_.end() && found->second != allowed && (among & area_bit(found->second)))
            return found->second;
        if (inactive && inactive_l2_.contains(c)) return Area::inactive_l2;
    }
    return std::nullopt;
}

} // namespace vmm::block::qcow2
