// AreaMap: which clusters of the file hold metadata, so that a wrong table entry cannot make us overwrite it.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <unordered_set>

namespace vmm::block::qcow2 {

enum class Area : std::uint8_t {
    header,
    active_l1,
    active_l2,
    refcount_table,
    refcount_block,
    snapshot_table,
    inactive_l1,
    bitmap_directory,
    encryption_header,
    inactive_l2, // of snapshots; looked for when asked for only
    disputed,    // two tables claim the cluster: nothing may be written to it
};
std::string_view area_name(Area area);

// A set of areas: bit n for the area of value n.
using AreaSet = std::uint16_t;
constexpr AreaSet area_bit(Area area) { return AreaSet(1u << unsigned(area)); }
inline constexpr AreaSet all_areas = AreaSet(~0u);
inline constexpr AreaSet cheap_areas = AreaSet(all_areas & ~area_bit(Area::inactive_l2)); // no reading for their sake

// Clusters of tables that are loaded or referenced from loaded ones. Bounded: at most max_tracked clusters are
// remembered, more tables than a disk of petabytes has.
class AreaMap {
public:
    explicit AreaMap(unsigned cluster_bits) : bits_(cluster_bits) {}
    void add(std::uint64_t offset, std::uint64_t bytes, Area area);
    void remove(std::uint64_t offset, std::uint64_t bytes, Area area);
    void clear() { clusters_.clear(); }
    // What conflict() looks at (overlap-check=...); cheap_areas from the start.
    void check_only(AreaSet areas) { checked_ = areas; }
    bool checks(Area area) const { return (checked_ & area_bit(area)) != 0; }
    // The offsets of the tables that snapshots refer to; those before are forgotten.
    void set_inactive_l2(std::span<std::uint64_t const> offsets);
    // What is known to lie in [offset, offset + bytes), looked at or not: a new cluster goes elsewhere.
    std::optional<Area> used_by(std::uint64_t offset, std::uint64_t bytes) const {
        return find(offset, bytes, std::nullopt, all_areas);
    }
    // What [offset, offset + bytes) would overwrite besides `allowed`.
    std::optional<Area> conflict(std::uint64_t offset, std::uint64_t bytes,
                                 std::optional<Area> allowed = std::nullopt) const {
        return find(offset, bytes, allowed, checked_);
    }

    static constexpr std::size_t max_tracked = 2u << 20;

private:
    std::optional<Area> find(std::uint64_t offset, std::uint64_t bytes, std::optional<Area> allowed,
                             AreaSet among) const;

    unsigned bits_;
    AreaSet checked_ = cheap_areas;
    std::unordered_set<std::uint64_t> inactive_l2_; // beside the map: an active table may be a snapshot's as well
    std::unordered_map<std::uint64_t, Area> clusters_;
};

} // namespace vmm::block::qcow2
