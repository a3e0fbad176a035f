#include "block/formats/vmdk/extent.h"

#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::vmdk {

namespace {

template <class T> Bytes bytes_of(T& object) { return {reinterpret_cast<std::uint8_t*>(&object), sizeof object}; }
} // namespace

Result<void> Extent::check_header(SparseHeader const& h) const {
    auto bad = [&](std::string_view field, std::uint64_t value, std::string_view why) {
        return error("Could not open '{}': VMDK header field {} is {}: {}", filename, field, value, why);
    };
    if (h.version < 1 || h.version > 3) return bad("version", h.version, "only versions 1 to 3 are supported");
    if (!is_power_of_two(h.grain_size) || h.grain_size > max_grain_sectors)
        return bad("grainSize", h.grain_size, "must be a power of two up to 32768 sectors");
    if (h.entries_per_table == 0 || h.entries_per_table > 512)
        return bad("numGTEsPerGT", h.entries_per_table, "must be 1 to 512");
    if (h.capacity > max_disk_sectors) return bad("capacity", h.capacity, "too large");
    if (div_ceil<std::uint64_t>(h.capacity, h.grain_size * h.entries_per_table) > max_directory_entries)
        return bad("capacity", h.capacity, "needs too large a grain directory");
    if (h.flags & flag_compressed && h.compression != 1)
        return bad("compressAlgorithm", h.compression, "only deflate (1) is supported");
    if (h.flags & flag_newline_test && h.newline_test != SparseHeader{}.newline_test)
        return error("Could not open '{}': the VMDK header's line ends were changed: the file was copied as text",
                     filename);
    return {};
}

Task<Result<void>> Extent::read_directory(std::uint64_t sector, std::vector<le32>& directory, std::string_view what) {
    std::uint64_t bytes = directory.size() * sizeof(le32);
    if (sector > max_disk_sectors) co_return error("Could not open '{}': {} is {}", filename, what, sector);
    Result<void> inside = check_inside_file(*device, sector * sector_bytes, bytes, what);
    if (!inside.ok()) co_return inside.error().with_prefix(fmt::format("Could not open '{}'", filename));
    Bytes target(reinterpret_cast<std::uint8_t*>(directory.data()), bytes);
    Result<void> result = co_await read_bytes(*device, sector * sector_bytes, target);
    co_return result;
}

Task<Result<void>> Extent::load_cowd(std::uint64_t& capacity_sectors) {
    CowdHeader h;
    CO_TRY(co_await read_bytes(*device, 0, bytes_of(h)));
    if (h.version != 1)
        co_return error("Could not open '{}': COWD header field version is {}", filename, h.version.load());
    if (!is_power_of_two(h.grain_size) || h.grain_size > max_grain_sectors)
        co_return error("Could not open '{}': COWD header field grainSize is {}", filename, h.grain_size.load());
    grain_bytes = std::uint64_t(h.grain_size) * sector_bytes;
    entries_ = cowd_entries_per_table;
    std::uint64_t need = div_ceil<std::uint64_t>(h.capacity, std::uint64_t(h.grain_size) * entries_);
    if (h.directory_entries < need || h.directory_entries > max_directory_entries)
        co_return error("Could not open '{}': COWD header field numGDEntries is {}, not {}", filename,
                        h.directory_entries.load(), need);
    capacity_sectors = h.capacity;
    appendable = false;
    directory_.resize(need);
    Result<void> result = co_await read_directory(h.directory, directory_, "COWD grain directory");
    co_return result;
}

Task<Result<void>> Extent::load_sparse(std::uint64_t& capacity_sectors, SparseHeader& h) {
    kind = ExtentKind::sparse;
    CO_TRY(check_inside_file(*device, 0, sizeof h, "VMDK header"));
    CO_TRY(co_await read_bytes(*device, 0, bytes_of(h)));
    if (std::string_view(h.magic.data(), 4) == cowd_magic) {
        Result<void> cowd = co_await load_cowd(capacity_sectors);
        co_return cowd;
    }
    if (std::string_view(h.magic.data(), 4) != sparse_magic)
        co_return error("Could not open '{}': not a sparse VMDK extent", filename);
    if (h.directory == gd_at_end) { // a stream: the footer is a header that knows
        appendable = false;
        std::uint64_t descriptor_offset = h.descriptor_offset, descriptor_size = h.descriptor_size;
        CO_TRY(check_inside_file(*device, device->size_bytes() & ~std::uint64_t(511), 0, "VMDK footer"));
        std::uint64_t footer = align_down<std::uint64_t>(device->size_bytes(), sector_bytes);
        if (footer < 3 * sector_bytes) co_return error("Could not open '{}': VMDK footer is missing", filename);
        CO_TRY(co_await read_bytes(*device, footer - 2 * sector_bytes, bytes_of(h)));
        if (std::string_view(h.magic.data(), 4) != sparse_magic || h.directory == gd_at_end)
            co_return error("Could not open '{}': VMDK footer is missing: the stream was cut off", filename);
        h.descriptor_offset = descriptor_offset;
        h.descriptor_size = descriptor_size;
    }
    CO_TRY(check_header(h));
    capacity_sectors = h.capacity;
    grain_bytes = h.grain_size * sector_bytes;
    entries_ = h.entries_per_table;
    compressed = h.flags & flag_compressed;
    markers = h.flags & flag_markers;
    zeroed_grains = h.flags & flag_zeroed_grain;
    directory_.resize(div_ceil<std::uint64_t>(h.capacity, h.grain_size * entries_));
    CO_TRY(co_await read_directory(h.directory, directory_, "VMDK grain directory (gdOffset)"));
    directory_sector_ = h.directory;
    if (h.flags & flag_redundant_tables) {
        redundant_.resize(directory_.size());
        Result<void> second = co_await read_directory(h.redundant_directory, redundant_, "rgdOffset");
        if (!second.ok()) redundant_.clear(); // only a copy
    }
    std::uint64_t first = std::min<std::uint64_t>(h.overhead, max_disk_sectors) * sector_bytes;
    end_ = align_up<std::uint64_t>(std::max(device->size_bytes(), first), compressed ? sector_bytes : grain_bytes);
    co_return Result<void>{};
}

std::vector<std::pair<std::uint64_t, std::uint64_t>> Extent::metadata() const {
    if (kind != ExtentKind::sparse) return {};
    std::vector<std::pair<std::uint64_t, std::uint64_t>> result{
        {0, sector_bytes}, {directory_sector_ * sector_bytes, directory_.size() * sizeof(le32)}};
    for (auto const* tables : {&directory_, &redundant_})
        for (le32 const& sector : *tables)
            if (sector != 0) result.push_back({std::uint64_t(sector) * sector_bytes, entries_ * sizeof(le32)});
    return result;
}

Result<std::optional<Mapping>> Extent::find(std::uint64_t offset) const {
    Mapping at;
    at.device = device;
    at.host_file = &filename;
    if (kind != ExtentKind::sparse) {
        at.start = start;
        at.length = length;
        at.kind = kind == ExtentKind::flat ? Mapping::Kind::data : Mapping::Kind::zero;
        at.host_offset = flat_offset;
        at.ask_file = true;
        return at;
    }
    std::uint64_t in = offset - start;
    at.start = start + in / grain_bytes * grain_bytes;
    at.length = std::min(grain_bytes, start + length - at.start);
    std::uint64_t index = in / table_span();
    if (index >= directory_.size() || directory_[index] == 0) return at; // no table: nothing stored
    auto const* table = tables_.find(index);
    if (!table) return std::optional<Mapping>();
    std::uint32_t entry = (*table)[in % table_span() / grain_bytes];
    if (entry == 0) return at;
    if (entry == gte_zeroed && zeroed_grains) {
        at.kind = Mapping::Kind::zero;
        return at;
    }
    at.kind = compressed ? Mapping::Kind::compressed : Mapping::Kind::data;
    at.host_offset = std::uint64_t(entry) * sector_bytes;
    if (at.host_offset >= device->size_bytes())
        return Error(fmt::format("'{}': grain table entry of sector {} points after the end of the file", filename,
                                 at.start / sector_bytes),
                     EIO);
    return at;
}

Task<Result<std::vector<le32>>> Extent::read_table(std::uint64_t index) {
    Table table(entries_);
    std::uint64_t at = std::uint64_t(directory_[index]) * sector_bytes;
    Result<void> inside = check_inside_file(*device, at, entries_ * sizeof(le32), "grain table");
    if (!inside.ok()) co_return Error(fmt::format("'{}': {}", filename, inside.error().message()), EIO);
    std::uint64_t const directory = directory_sector_ * sector_bytes,
                        end = directory + directory_.size() * sizeof(le32);
    if (at < sector_bytes || (at < end && directory < at + entries_ * sizeof(le32)))
        co_return Error(fmt::format("'{}': grain table {} at sector {} lies on the header or the grain directory",
                                    filename, index, at / sector_bytes),
                        EIO);
    Bytes bytes(reinterpret_cast<std::uint8_t*>(table.data()), entries_ * sizeof(le32));
    CO_TRY(co_await read_bytes(*device, at, bytes));
    co_return std::move(table);
}

Task<Result<void>> Extent::load_table(std::uint64_t offset) {
    std::uint64_t index = (offset - start) / table_span();
    CO_TRY_ASSIGN(Table table, co_await read_table(index));
    tables_.insert(index, std::move(table));
    co_return Result<void>{};
}

Task<Result<void>> Extent::pin_table(std::uint64_t offset) {
    std::uint64_t index = (offset - start) / table_span();
    if (index >= directory_.size() || directory_[index] == 0)
        co_return Error(fmt::format("'{}' has no grain table for sector {}: it cannot be written there", filename,
                                    offset / sector_bytes),
                        ENOTSUP);
    tables_.pin(index);
    if (!tables_.find(index)) {
        CO_TRY(co_await load_table(offset));
    }
    co_return Result<void>{};
}

std::uint64_t Extent::append(std::uint64_t bytes) {
    std::uint64_t at = end_;
    end_ += align_up<std::uint64_t>(bytes, compressed ? sector_bytes : grain_bytes);
    return at;
}

void Extent::set_entry(std::uint64_t offset, std::uint32_t sector) {
    std::uint64_t in = offset - start;
    tables_.set(in / table_span(), in % table_span() / grain_bytes, sector);
}

Task<Result<void>> Extent::write_sector(std::uint64_t table, std::uint64_t at, ConstBytes bytes) {
    // The second copy first: the first is the one that is read.
    if (!redundant_.empty() && redundant_[table] != 0) {
        CO_TRY(co_await write_bytes(*device, std::uint64_t(redundant_[table]) * sector_bytes + at, bytes));
    }
    Result<void> result = co_await write_bytes(*device, std::uint64_t(directory_[table]) * sector_bytes + at, bytes);
    co_return result;
}

Task<Result<void>> Extent::write_back() {
    // As they are now: what is published while we write has data that is not stable yet.
    std::vector<SecondLevel<le32>::Change> changes = tables_.take_changes();
    Result<void> result = co_await device->flush();
    for (std::size_t i = 0; result.ok() && i < changes.size(); ++i)
        result = co_await write_sector(changes[i].table, changes[i].offset_bytes(),
                                       {changes[i].data(), changes[i].size_bytes()});
    if (result.ok() && !changes.empty()) result = co_await device->flush();
    if (!result.ok()) tables_.put_back(changes);
    co_return result;
}

Task<Result<void>> Extent::check(CheckReport& report, std::function<void(std::string_view)> message) {
    if (kind != ExtentKind::sparse) co_return Result<void>{};
    std::set<std::uint32_t> seen;
    for (std::uint64_t index = 0; index < directory_.size(); ++index) {
        if (directory_[index] == 0) continue;
        auto const* cached = tables_.find(index);
        Table table;
        if (cached) {
            table = *cached;
        } else {
            CO_TRY_ASSIGN(table, co_await read_table(index));
        }
        for (std::uint64_t i = 0; i < entries_; ++i) {
            std::uint32_t entry = table[i];
            if (entry == 0 || (entry == gte_zeroed && zeroed_grains)) continue;
            std::uint64_t sector = (start + index * table_span() + i * grain_bytes) / sector_bytes;
            if (std::uint64_t(entry) * sector_bytes >= device->size_bytes()) {
                message(fmt::format("ERROR: cluster offset for sector {} points after EOF", sector));
                ++report.corruptions;
            } else if (!seen.insert(entry).second) {
                message(fmt::format("ERROR: cluster of sector {} is also used by another sector", sector));
                ++report.corruptions;
            }
        }
    }
    co_return Result<void>{};
}

} // namespace vmm::block::vmdk
