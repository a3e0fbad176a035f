#include "block/formats/qcow2/table_cache.h"

#include <algorithm>

namespace vmm::block::qcow2 {

TableRef TableCache::find(std::uint64_t offset) {
    auto found = slots_.find(offset);
    if (found == slots_.end()) return nullptr;
    if (found->second.age != ages_.begin()) ages_.splice(ages_.begin(), ages_, found->second.age);
    return found->second.table;
}

TableRef TableCache::insert(std::uint64_t offset) {
    if (slots_.size() >= max_tables_) evict();
    auto table = std::make_shared<Table>();
    table->offset = offset;
    table->bytes.resize(table_bytes_);
    ages_.push_front(offset);
    slots_[offset] = Slot{table, ages_.begin()};
    return table;
}

void TableCache::evict() {
    constexpr int attempts = 16; // held or dirty tables are passed over; the limit is a soft one
    auto at = ages_.end();
    for (int i = 0; i < attempts && at != ages_.begin(); ++i) {
        --at;
        auto slot = slots_.find(*at);
        if (slot->second.table->dirty || slot->second.table.use_count() > 1) continue;
        slots_.erase(slot);
        at = ages_.erase(at);
        if (slots_.size() < max_tables_) return;
    }
}

Task<Result<TableRef>> TableCache::load(std::uint64_t offset) {
    for (;;) {
        if (TableRef table = find(offset)) co_return table;
        auto pending = loading_.find(offset);
        if (pending == loading_.end()) break;
        std::shared_ptr<AsyncCondition> condition = pending->second; // outlives the notification
        co_await condition->wait();
    }
    auto condition = std::make_shared<AsyncCondition>();
    loading_[offset] = condition;
    std::vector<std::uint8_t> bytes(table_bytes_);
    Bytes all(bytes);
    if (debug_) co_await debug_->event(load_event_);
    Result<void> result = co_await read_bytes(file_, offset, all);
    TableRef table;
    if (result.ok()) {
        table = find(offset); // create() may have made it meanwhile
        if (!table) {
            table = insert(offset);
            table->bytes = std::move(bytes);
        }
    }
    loading_.erase(offset);
    condition->notify_all();
    if (!result.ok()) co_return result.error();
    co_return table;
}

TableRef TableCache::create(std::uint64_t offset) {
    drop(offset);
    TableRef table = insert(offset);
    mark_dirty(*table, 0, table_bytes_);
    return table;
}

void TableCache::drop(std::uint64_t offset) {
    auto found = slots_.find(offset);
    if (found == slots_.end()) return;
    found->second.table->dirty = 0;
    dirty_.erase(offset);
    ages_.erase(found->second.age);
    slots_.erase(found);
}

void TableCache::forget_all() {
    dirty_.clear();
    slots_.clear();
    ages_.clear();
}

void TableCache::mark_dirty(Table& table, std::size_t first_byte, std::size_t bytes) {
    if (!table.dirty) {
        auto slot = slots_.find(table.offset);
        if (slot == slots_.end() || slot->second.table.get() != &table) return; // dropped: nobody needs it any more
        dirty_[table.offset] = slot->second.table;
    }
    std::size_t part = part_bytes();
    std::size_t first = first_byte / part, last = (first_byte + bytes - 1) / part;
    table.dirty |= (~0ull >> (63 - (last - first))) << first;
}

std::vector<TableCopy> TableCache::take_dirty() {
    std::vector<TableCopy> copies;
    copies.reserve(dirty_.size());
    std::size_t const part = part_bytes();
    for (auto& [offset, table] : dirty_) {
        TableCopy copy{table, table->dirty, {}};
        copy.bytes.reserve(part * std::size_t(std::popcount(table->dirty)));
        for (std::uint64_t mask = table->dirty; mask; mask &= mask - 1) {
            auto from = table->bytes.begin() + std::ptrdiff_t(part * std::size_t(std::countr_zero(mask)));
            copy.bytes.insert(copy.bytes.end(), from, from + std::ptrdiff_t(part));
        }
        table->dirty = 0;
        copies.push_back(std::move(copy));
    }
    dirty_.clear();
    std::ranges::sort(copies, {}, [](TableCopy const& c) { return c.table->offset; });
    return copies;
}

void TableCache::put_back(TableCopy const& copy) {
    auto slot = slots_.find(copy.table->offset);
    if (slot == slots_.end() || slot->second.table != copy.table) return;
    dirty_[copy.table->offset] = copy.table;
    copy.table->dirty |= copy.mask;
}

Task<Result<void>> TableCache::write(TableCopy const& copy) {
    std::size_t const part = part_bytes();
    std::size_t taken = 0;
    for (unsigned first = 0; first < 64;) {
        if (!(copy.mask >> first & 1)) {
            ++first;
            continue;
        }
        unsigned count = unsigned(std::countr_one(copy.mask >> first));
        ConstBytes run(copy.bytes.data() + taken, count * part);
        CO_TRY(co_await write_bytes(file_, copy.table->offset + first * part, run));
        taken += count * part;
        first += count;
    }
    co_return Result<void>{};
}

} // namespace vmm::block::qcow2
