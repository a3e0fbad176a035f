// SecondLevel: the second-level tables of a format in memory, by their index in the first level. What was changed stays
// until it is written back; clean ones are dropped when there are many. Used by one thread.
#pragma once
#include "vmm/base/assert.h"

#include <algorithm>
#include <cstdint>
#include <map>
#include <set>
#include <utility>
#include <vector>

namespace vmm::block {

template <class Entry> class SecondLevel {
public:
    using Table = std::vector<Entry>;

    // Null: not in memory.
    Table const* find(std::uint64_t index) const {
        auto found = tables_.find(index);
        return found == tables_.end() ? nullptr : &found->second;
    }
    // A table as it is in the file; kept as it was when another task was faster.
    void insert(std::uint64_t index, Table table) {
        if (tables_.size() * table.size() * sizeof(Entry) >= max_bytes)
            std::erase_if(tables_, [this](auto const& one) { return droppable(one.first); });
        tables_.emplace(index, std::move(table));
    }
    // A table that is not in the file yet: all of it has to be written.
    void insert_new(std::uint64_t index, Table table) {
        for (std::uint64_t piece = 0; piece * piece_entries < table.size(); ++piece) dirty_.insert({index, piece});
        tables_.emplace(index, std::move(table));
    }
    // The table is not dropped until set() was called for it as often.
    void pin(std::uint64_t index) { pinned_.insert(index); }
    // The table is in memory.
    void set(std::uint64_t index, std::uint64_t entry, Entry value) {
        auto table = tables_.find(index);
        VMM_ASSERT(table != tables_.end());
        table->second[entry] = value;
        dirty_.insert({index, entry / piece_entries});
        if (auto pin = pinned_.find(index); pin != pinned_.end()) pinned_.erase(pin);
    }
    bool clean() const { return dirty_.empty(); }
    // Everything is forgotten, changes included.
    void clear() {
        tables_.clear();
        dirty_.clear();
    }

    // A sector of a table, as it was when it was taken.
    struct Change {
        std::uint64_t table, piece;
        std::vector<Entry> entries;
        std::uint64_t offset_bytes() const { return piece * piece_bytes; } // in the table
        std::uint8_t* data() { return reinterpret_cast<std::uint8_t*>(entries.data()); }
        std::size_t size_bytes() const { return entries.size() * sizeof(Entry); }
    };
    // What has to be written, by table; it counts as written from now on.
    std::vector<Change> take_changes() {
        std::vector<Change> changes;
        for (auto [index, piece] : dirty_) {
            Table const& table = tables_.find(index)->second;
            auto first = table.begin() + std::ptrdiff_t(piece * piece_entries);
            auto count = std::min<std::ptrdiff_t>(piece_entries, table.end() - first);
            changes.push_back({index, piece, {first, first + count}});
        }
        dirty_.clear();
        return changes;
    }
    // It was not: writing failed.
    void put_back(std::vector<Change> const& changes) {
        for (Change const& change : changes) dirty_.insert({change.table, change.piece});
    }

private:
    static constexpr std::uint64_t piece_bytes = 512, piece_entries = piece_bytes / sizeof(Entry);
    static constexpr std::size_t max_bytes = 16 << 20;

    bool droppable(std::uint64_t index) const {
        auto changed = dirty_.lower_bound({index, 0});
        return !pinned_.contains(index) && (changed == dirty_.end() || changed->first != index);
    }

    std::map<std::uint64_t, Table> tables_;
    std::set<std::pair<std::uint64_t, std::uint64_t>> dirty_; // (table, piece in it)
    std::multiset<std::uint64_t> pinned_;                     // tables about to change
};

} // namespace vmm::block
