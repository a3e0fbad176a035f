// TableCache: L2 tables or refcount blocks in memory, in their on-disk form, with the parts that changed.
#pragma once
#include "block/core/block_device.h"
#include "block/core/debug_events.h"
#include "block/core/sync.h"

#include <cstdint>
#include <list>
#include <memory>
#include <unordered_map>
#include <vector>

namespace vmm::block::qcow2 {

// One cluster of metadata. Changed only between co_awaits, by whoever holds a reference; then mark_dirty().
struct Table {
    std::uint64_t offset = 0; // in the image file
    std::vector<std::uint8_t> bytes;
    std::uint64_t dirty = 0; // one bit per 1/64 of the table
};
// Holding one keeps the table in memory.
using TableRef = std::shared_ptr<Table>;

// A part of a table as it was at one moment.
struct TableCopy {
    TableRef table;
    std::uint64_t mask = 0;          // which of its 64 parts
    std::vector<std::uint8_t> bytes; // those parts, one after the other
};

// Keeps at most about `max_tables`: clean tables nobody holds go, least recently used first; dirty ones stay until
// written (the owner bounds them: dirty_bytes()). Loop thread only.
class TableCache {
public:
    // `load_event` is told to the file's debug events before each read of a table.
    TableCache(BlockDevice& file, std::uint32_t table_bytes, std::size_t max_tables, BlkdebugEvent load_event)
        : file_(file), debug_(file.capabilities().debug), table_bytes_(table_bytes), max_tables_(max_tables),
          load_event_(load_event) {}

    // The table if it is in memory, else null.
    TableRef find(std::uint64_t offset);
    // The table, read from the file when needed. Concurrent loads of one table are one read.
    Task<Result<TableRef>> load(std::uint64_t offset);
    // A new table of zeroes, all dirty.
    TableRef create(std::uint64_t offset);
    // Forgets a table that no longer is one, changes included.
    void drop(std::uint64_t offset);
    // Forgets everything, changes included.
    void forget_all();

    void mark_dirty(Table& table, std::size_t first_byte, std::size_t bytes);
    std::size_t dirty_tables() const { return dirty_.size(); }
    std::uint64_t dirty_bytes() const { return std::uint64_t(dirty_.size()) * table_bytes_; }
    std::size_t max_tables() const { return max_tables_; }
    // Copies of all changed parts, which count as clean from now on.
    std::vector<TableCopy> take_dirty();
    // A copy that could not be written: its parts are dirty again.
    void put_back(TableCopy const& copy);
    // Writes the parts of `copy`.
    Task<Result<void>> write(TableCopy const& copy);

private:
    struct Slot {
        TableRef table; // null while loading
        std::list<std::uint64_t>::iterator age;
    };
    void evict();
    TableRef insert(std::uint64_t offset);
    std::size_t part_bytes() const { return std::max<std::size_t>(table_bytes_ / 64, 8); }

    BlockDevice& file_;
    DebugEvents* debug_; // the file's, or null
    std::uint32_t table_bytes_;
    std::size_t max_tables_;
    BlkdebugEvent load_event_;
    std::unordered_map<std::uint64_t, Slot> slots_;
    std::list<std::uint64_t> ages_; // most recently used first
    std::unordered_map<std::uint64_t, TableRef> dirty_;
    std::unordered_map<std::uint64_t, std::shared_ptr<AsyncCondition>> loading_;
};

} // namespace vmm::block::qcow2
