// SnapshotTable: the internal snapshots of an image: their directory in the file, making, applying and removing them.
#pragma once
#include "block/core/capabilities.h"
#include "block/formats/qcow2/clusters.h"
#include "block/formats/qcow2/store.h"

#include <string>
#include <vector>

namespace vmm::block::qcow2 {

// One entry of the snapshot table.
struct StoredSnapshot {
    SnapshotInfo info;
    std::uint64_t l1_offset = 0;
    std::uint32_t l1_entries = 0;
    std::vector<std::uint8_t> unknown_extra; // extra data behind the fields we know

    std::uint64_t l1_bytes() const { return std::uint64_t(l1_entries) * 8; }
};

// No other request may be in flight during any of the changing calls.
class SnapshotTable {
public:
    SnapshotTable(Store& store, Clusters& clusters) : store_(store), clusters_(clusters), g_(store.geometry()) {}

    // Reads the table; every field is checked.
    Task<Result<void>> load();
    std::vector<StoredSnapshot> const& all() const { return snapshots_; }
    // By id first, then by name; null if there is none.
    StoredSnapshot const* find(std::string const& name_or_id) const;
    // Bytes the table has in the file.
    std::uint64_t table_bytes() const { return table_bytes_; }

    Task<Result<void>> create(SnapshotRequest request, std::uint64_t disk_size);
    // The active tables become the snapshot's; the caller has made the disk as long as it was.
    Task<Result<void>> apply(StoredSnapshot snapshot);
    Task<Result<void>> remove(StoredSnapshot snapshot);
    // Writes the directory again, in our form, and with it the header.
    Task<Result<void>> rewrite() { return write_table(snapshots_); }
    // The L1 table of a snapshot, host order.
    Task<Result<std::vector<std::uint64_t>>> read_l1(StoredSnapshot const& snapshot);

private:
    Task<Result<std::uint64_t>> load_one(std::uint64_t offset);
    Task<Result<void>> write_table(std::vector<StoredSnapshot> snapshots);
    // Tells the area map where the snapshots' L2 tables are, if it looks at them.
    Task<Result<void>> note_inactive_l2();
    // Adds `delta` to the count of everything `l1` reaches.
    Task<Result<void>> count_tree(std::vector<std::uint64_t> const& l1, int delta);
    Task<Result<void>> count_l2(Table const& table, int delta);
    Task<Result<void>> check_room(std::vector<std::uint64_t> const& l1);
    // Makes the "copied" flags of the active tables say what the counts say.
    Task<Result<void>> renew_copied_flags();
    Task<Result<void>> clear_copied_flags();
    std::string next_id() const;

    Store& store_;
    Clusters& clusters_;
    Geometry const& g_;
    std::vector<StoredSnapshot> snapshots_;
    std::uint64_t table_bytes_ = 0;
};

} // namespace vmm::block::qcow2
