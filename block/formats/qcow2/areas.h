// AreaMap: which clusters of the file hold metadata, so that a wrong table entry cannot make us overwrite it.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>
#include <unordered_map>

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
    disputed, // two tables claim the cluster: nothing may be written to it
};
std::string_view area_name(Area area);

// Clusters of tables that are loaded or referenced from loaded ones. Bounded: at most max_tracked clusters are
// remembered, more tables than a disk of petabytes has.
class AreaMap {
public:
    explicit AreaMap(unsigned cluster_bits) : bits_(cluster_bits) {}
    void add(std::uint64_t offset, std::uint64_t bytes, Area area);
    void remove(std::uint64_t offset, std::uint64_t bytes, Area area);
    void clear() { clusters_.clear(); }
    // What [offset, offset + bytes) would overwrite besides `allowed`.
    std::optional<Area> conflict(std::uint64_t offset, std::uint64_t bytes,
                                 std::optional<Area> allowed = std::nullopt) const;

    static constexpr std::size_t max_tracked = 2u << 20;

private:
    unsigned bits_;
    std::unordered_map<std::uint64_t, Area> clusters_;
};

} // namespace vmm::block::qcow2
