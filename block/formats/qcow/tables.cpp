#include "block/formats/qcow/tables.h"

#include "block/core/capabilities.h"
#include "block/formats/mapped/mapped_image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow {

namespace {
constexpr std::uint64_t piece_entries = 64; // of the first level: 512 bytes are written at once

Bytes bytes_of(std::vector<be64>& table) {
    return {reinterpret_cast<std::uint8_t*>(table.data()), table.size() * sizeof(be64)};
}
} // namespace

Task<Result<void>> Tables::load_l1() {
    CO_TRY(check_inside_file(file_, header_.l1_offset, l1_.size() * sizeof(be64), "qcow L1 table (l1_table_offset)"));
    CO_TRY(co_await read_bytes(file_, header_.l1_offset, bytes_of(l1_)));
    end_ = std::max(file_.size_bytes(), header_.l1_offset + l1_.size() * sizeof(be64));
    co_return Result<void>{};
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Tables::places() const {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> result{{header_.l1_offset, l1_.size() * sizeof(be64)}};
    for (be64 const& table : l1_)
        if (table != 0) result.push_back({table, header_.l2_entries() * sizeof(be64)});
    return result;
}

std::optional<std::uint64_t> Tables::find(std::uint64_t offset) const {
    std::uint64_t index = l1_index(offset);
    if (l1_[index] == 0) return 0;
    auto const* table = tables_.find(index);
    if (!table) return std::nullopt;
    return (*table)[l2_index(offset)].load();
}

Task<Result<void>> Tables::load(std::uint64_t offset) {
    std::uint64_t index = l1_index(offset), at = l1_[index];
    Table table(header_.l2_entries());
    Result<void> inside = check_inside_file(file_, at, table.size() * sizeof(be64), fmt::format("L2 table {}", index));
    if (!inside.ok()) co_return Error(inside.error().message(), EIO);
    std::uint64_t const l1_end = header_.l1_offset + l1_.size() * sizeof(be64), bytes = table.size() * sizeof(be64);
    if (at < sizeof(Header) || (at < l1_end && header_.l1_offset < at + bytes))
        co_return Error(fmt::format("L2 table {} at offset {:#x} lies on the header or the L1 table", index, at), EIO);
    CO_TRY(co_await read_bytes(file_, at, bytes_of(table)));
    tables_.insert(index, std::move(table));
    co_return Result<void>{};
}

Task<Result<void>> Tables::pin(std::uint64_t offset) {
    std::uint64_t index = l1_index(offset);
    tables_.pin(index);
    if (tables_.find(index)) co_return Result<void>{};
    if (l1_[index] != 0) {
        Result<void> loaded = co_await load(offset);
        co_return loaded;
    }
    std::uint64_t bytes = header_.l2_entries() * sizeof(be64);
    end_ = align_up(end_, header_.cluster_bytes());
    l1_[index] = end_;
    end_ += bytes;
    tables_.insert_new(index, Table(header_.l2_entries()));
    dirty_l1_.insert(index / piece_entries);
    co_return Result<void>{};
}

void Tables::set(std::uint64_t offset, std::uint64_t entry) { tables_.set(l1_index(offset), l2_index(offset), entry); }

std::uint64_t Tables::append_cluster() {
    std::uint64_t at = align_up(end_, header_.cluster_bytes());
    end_ = at + header_.cluster_bytes();
    return at;
}

std::uint64_t Tables::append_bytes(std::uint64_t bytes) {
    std::uint64_t at = end_;
    end_ += bytes;
    return at;
}

Task<Result<void>> Tables::clear() {
    tables_.clear();
    dirty_l1_.clear();
    std::ranges::fill(l1_, be64(0));
    CO_TRY(co_await write_bytes(file_, header_.l1_offset, bytes_of(l1_)));
    CO_TRY(co_await file_.flush());
    Resizable* resizable = file_.capabilities().resizable;
    if (!resizable) co_return Result<void>{};
    ResizeRequest shorter{
        .new_size_bytes = header_.l1_offset + l1_.size() * sizeof(be64), .shrink_ok = true, .exact = false};
    Result<void> result = co_await resizable->resize(shorter);
    co_return result;
}

Task<Result<void>> Tables::write_back() {
    // As they are now: what is published while we write has data that is not stable yet.
    std::vector<SecondLevel<be64>::Change> second = tables_.take_changes();
    std::vector<std::pair<std::uint64_t, Table>> first;
    for (std::uint64_t piece : dirty_l1_) {
        auto begin = l1_.begin() + std::ptrdiff_t(piece * piece_entries);
        auto count = std::min<std::ptrdiff_t>(piece_entries, l1_.end() - begin);
        first.push_back({header_.l1_offset + piece * piece_entries * sizeof(be64), Table(begin, begin + count)});
    }
    auto dirty_l1 = std::exchange(dirty_l1_, {});
    Result<void> result = co_await file_.flush();
    for (std::size_t i = 0; result.ok() && i < second.size(); ++i)
        result = co_await write_bytes(file_, l1_[second[i].table] + second[i].offset_bytes(),
                                      {second[i].data(), second[i].size_bytes()});
    if (result.ok()) result = co_await file_.flush();
    for (std::size_t i = 0; result.ok() && i < first.size(); ++i)
        result = co_await write_bytes(file_, first[i].first, bytes_of(first[i].second));
    if (result.ok() && !first.empty()) result = co_await file_.flush();
    if (!result.ok()) {
        tables_.put_back(second);
        dirty_l1_.merge(dirty_l1);
    }
    co_return result;
}

} // namespace vmm::block::qcow
