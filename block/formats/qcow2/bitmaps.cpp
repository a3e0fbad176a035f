#include "block/formats/qcow2/bitmaps.h"

#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow2 {

namespace {

struct RawBitmap {
    be64 table_offset;
    be32 table_entries, flags;
    std::uint8_t type, granularity_bits;
    be16 name_bytes;
    be32 extra_bytes;
};
static_assert(sizeof(RawBitmap) == 24);
constexpr std::uint32_t flag_in_use = 1, flag_auto = 2, flag_extra_compatible = 4;
constexpr unsigned min_granularity_bits = 9, max_granularity_bits = 31;
constexpr std::size_t max_name_bytes = 1023;
constexpr std::uint8_t type_dirty_tracking = 1;
constexpr std::uint64_t table_entry_ones = 1;
constexpr std::uint64_t table_entry_reserved = 0xff000000000001feull;
constexpr std::uint64_t max_bitmap_bytes = 512u << 20; // in memory

Error no_such_bitmap(std::string const& name) {
    return Error(fmt::format("Dirty bitmap '{}' not found", name), ENOENT);
}

} // namespace

// --- the directory

std::uint64_t BitmapTable::bit_count(Bitmap const& b, std::uint64_t disk) const {
    return div_ceil(disk, std::uint64_t(1) << b.granularity_bits);
}

Result<std::size_t> BitmapTable::parse_entry(ConstBytes data) {
    RawBitmap raw{};
    if (data.size() < sizeof raw) return error("Bitmap directory entry {} is cut off", all_.size());
    std::memcpy(&raw, data.data(), sizeof raw);
    std::uint64_t const bytes =
        align_up<std::uint64_t>(sizeof raw + std::uint64_t(raw.extra_bytes) + raw.name_bytes, 8);
    if (bytes > data.size()) return error("Bitmap directory entry {} is longer than the directory", all_.size());
    Bitmap b;
    auto at = data.begin() + sizeof raw;
    b.extra.assign(at, at + raw.extra_bytes);
    b.name.assign(at + raw.extra_bytes, at + raw.extra_bytes + raw.name_bytes);
    b.table_offset = raw.table_offset;
    b.table_entries = raw.table_entries;
    b.flags = raw.flags;
    b.type = raw.type;
    b.granularity_bits = raw.granularity_bits;
    if (b.name.empty() || b.name.size() > max_name_bytes)
        return error("Bitmap {}: name_size {} is not between 1 and {}", all_.size(), b.name.size(), max_name_bytes);
    if (b.granularity_bits < min_granularity_bits || b.granularity_bits > max_granularity_bits)
        return error("Bitmap '{}': granularity_bits {} is not between {} and {}", b.name, b.granularity_bits,
                     min_granularity_bits, max_granularity_bits);
    if ((b.table_offset & g_.cluster_mask()) || b.table_offset == 0 || b.table_offset > max_host_offset)
        return error("Bitmap '{}': bitmap_table_offset {:#x} invalid", b.name, b.table_offset);
    if (b.table_entries > max_bitmap_table_entries)
        return error("Bitmap '{}': bitmap_table_size {} is too large", b.name, b.table_entries);
    if (b.flags & ~7u) return error("Bitmap '{}': reserved flags are set ({:#x})", b.name, b.flags);
    for (Bitmap const& have : all_)
        if (have.name == b.name) return error("Two bitmaps have the name '{}'", b.name);
    b.enabled = (b.flags & flag_auto) != 0;
    b.in_use = (b.flags & flag_in_use) != 0;
    b.other = b.type != type_dirty_tracking || (!b.extra.empty() && !(b.flags & flag_extra_compatible));
    std::uint64_t const data_bytes = div_ceil<std::uint64_t>(bit_count(b, disk_size_), 8);
    if (!b.in_use && !b.other && b.table_entries != div_ceil(data_bytes, g_.cluster()))
        b.in_use = true; // of another disk size
    all_.push_back(std::move(b));
    return bytes;
}

Task<Result<void>> BitmapTable::load() {
    all_.clear();
    disk_size_ = store_.header().size_bytes;
    if (!store_.header().bitmaps) co_return Result<void>{};
    BitmapsExtension const ext = *store_.header().bitmaps;
    if (ext.directory_offset + ext.directory_bytes > align_up(store_.file().size_bytes(), g_.cluster()))
        co_return error("bitmaps_ext: the bitmap directory lies beyond the end of the file");
    std::vector<std::uint8_t> raw(ext.directory_bytes);
    Bytes all(raw);
    Result<void> got = co_await read_bytes(store_.file(), ext.directory_offset, all);
    if (!got.ok()) co_return got.error().with_prefix("Could not read the bitmap directory");
    std::size_t at = 0;
    for (std::uint32_t i = 0; i < ext.count; ++i) {
        CO_TRY_ASSIGN(std::size_t taken, parse_entry(ConstBytes(all).subspan(at)));
        at += taken;
    }
    if (at != raw.size())
        co_return error("bitmaps_ext: bitmap_directory_size {} does not fit its {} entries", raw.size(), ext.count);
    store_.areas().add(ext.directory_offset, ext.directory_bytes, Area::bitmap_directory);
    co_return Result<void>{};
}

std::vector<std::uint8_t> BitmapTable::serialize(bool closing) const {
    std::vector<std::uint8_t> out;
    for (Bitmap const& b : all_) {
        RawBitmap raw{};
        raw.table_offset = b.table_offset;
        raw.table_entries = b.table_entries;
        std::uint32_t flags = b.flags & ~(flag_in_use | flag_auto);
        if (b.enabled) flags |= flag_auto;
        if (b.in_use || (b.marked && !closing)) flags |= flag_in_use;
        raw.flags = b.other ? b.flags : flags;
        raw.type = b.type;
        raw.granularity_bits = std::uint8_t(b.granularity_bits);
        raw.name_bytes = std::uint16_t(b.name.size());
        raw.extra_bytes = std::uint32_t(b.extra.size());
        auto const* bytes = reinterpret_cast<std::uint8_t const*>(&raw);
        out.insert(out.end(), bytes, bytes + sizeof raw);
        out.insert(out.end(), b.extra.begin(), b.extra.end());
        out.insert(out.end(), b.name.begin(), b.name.end());
        out.resize(align_up<std::size_t>(out.size(), 8));
    }
    return out;
}

// --- bits

Task<Result<std::vector<std::uint64_t>>> BitmapTable::read_table(Bitmap const& b) {
    if (b.table_offset + std::uint64_t(b.table_entries) * 8 > align_up(store_.file().size_bytes(), g_.cluster()))
        co_return error("Bitmap '{}': the bitmap table lies beyond the end of the file", b.name);
    std::vector<std::uint8_t> raw(std::size_t(b.table_entries) * 8);
    Bytes all(raw);
    if (!raw.empty()) {
        CO_TRY(co_await read_bytes(store_.file(), b.table_offset, all));
    }
    std::vector<std::uint64_t> table(b.table_entries);
    for (std::size_t i = 0; i < table.size(); ++i) {
        table[i] = load_be64(raw.data() + i * 8);
        std::uint64_t offset = table[i] & entry_offset_mask;
        if ((table[i] & table_entry_reserved) || (offset & g_.cluster_mask()) ||
            (offset && (table[i] & table_entry_ones)))
            co_return error("Bitmap '{}': bitmap table entry {} is invalid: {:#x}", b.name, i, table[i]);
    }
    co_return table;
}

Task<Result<void>> BitmapTable::read_bits(Bitmap& b) {
    if (b.loaded) co_return Result<void>{};
    std::uint64_t const bytes = div_ceil<std::uint64_t>(bit_count(b, disk_size_), 8);
    if (bytes > max_bitmap_bytes)
        co_return Error(fmt::format("Bitmap '{}' is too large to be used ({} bytes)", b.name, bytes), EFBIG);
    std::vector<std::uint8_t> bits(bytes);
    if (b.table_offset) {
        CO_TRY_ASSIGN(std::vector<std::uint64_t> table, co_await read_table(b));
        for (std::size_t i = 0; i < table.size(); ++i) {
            Bytes part = Bytes(bits).subspan(i * g_.cluster());
            part = part.first(std::min<std::size_t>(part.size(), g_.cluster()));
            std::uint64_t offset = table[i] & entry_offset_mask;
            if (offset) {
                CO_TRY(co_await read_bytes(store_.file(), offset, part));
            } else {
                std::ranges::fill(part, table[i] & table_entry_ones ? 0xff : 0);
            }
        }
    }
    b.bits = std::move(bits);
    b.loaded = true;
    co_return Result<void>{};
}

Task<Result<void>> BitmapTable::list_extents(Bitmap const& b, std::vector<Extent>& out) {
    if (!b.table_offset) co_return Result<void>{};
    out.push_back({b.table_offset, div_ceil<std::uint64_t>(std::uint64_t(b.table_entries) * 8, g_.cluster()), false});
    CO_TRY_ASSIGN(std::vector<std::uint64_t> table, co_await read_table(b));
    for (std::uint64_t entry : table)
        if (std::uint64_t offset = entry & entry_offset_mask) out.push_back({offset, 1, false});
    co_return Result<void>{};
}

Task<Result<std::vector<Extent>>> BitmapTable::extents() {
    std::vector<Extent> out;
    if (auto const& ext = store_.header().bitmaps)
        out.push_back({ext->directory_offset, div_ceil(ext->directory_bytes, g_.cluster()), false});
    for (Bitmap const& b : all_) {
        CO_TRY(co_await list_extents(b, out));
    }
    co_return out;
}

// Writes the bits to new clusters; the old ones go to `replaced`.
Task<Result<void>> BitmapTable::write_bits(Bitmap& b, std::vector<Extent>& replaced) {
    CO_TRY(co_await list_extents(b, replaced));
    std::uint64_t const cluster = g_.cluster(), entries = div_ceil<std::uint64_t>(b.bits.size(), cluster);
    if (std::uint64_t tail = bit_count(b, disk_size_) % 8) b.bits.back() &= std::uint8_t((1u << tail) - 1);
    std::vector<std::uint8_t> table(std::max<std::uint64_t>(entries * 8, 8));
    for (std::uint64_t i = 0; i < entries; ++i) {
        ConstBytes part = ConstBytes(b.bits).subspan(i * cluster);
        part = part.first(std::min<std::size_t>(part.size(), cluster));
        std::uint64_t entry = 0;
        if (part.size() == cluster && std::ranges::all_of(part, [](std::uint8_t v) { return v == 0xff; })) {
            entry = table_entry_ones;
        } else if (!is_zero(part)) {
            CO_TRY_ASSIGN(Extent extent, co_await store_.refcounts().allocate(1));
            entry = extent.offset;
            std::vector<std::uint8_t> padded(part.begin(), part.end());
            padded.resize(cluster);
            ConstBytes all(padded);
            CO_TRY(co_await write_bytes(store_.file(), entry, all));
        }
        store_be64(table.data() + i * 8, entry);
    }
    CO_TRY_ASSIGN(Extent place,
                  co_await store_.refcounts().allocate_exact(div_ceil<std::uint64_t>(table.size(), cluster)));
    ConstBytes all(table);
    CO_TRY(co_await write_bytes(store_.file(), place.offset, all));
    b.table_offset = place.offset;
    b.table_entries = std::uint32_t(entries);
    b.changed = b.marked = false;
    co_return Result<void>{};
}

void BitmapTable::set_bits(Bitmap& b, std::uint64_t first, std::uint64_t last) {
    for (std::uint64_t i = first; i <= last;) {
        if (i % 8 == 0 && last - i >= 7) {
            b.bits[i / 8] = 0xff;
            i += 8;
        } else {
            b.bits[i / 8] |= std::uint8_t(1u << (i % 8));
            ++i;
        }
    }
    b.changed = true;
}

// --- recording

bool BitmapTable::any_enabled() const {
    return std::ranges::any_of(all_, [](Bitmap const& b) { return b.enabled && !b.in_use && !b.other; });
}

Task<Result<void>> BitmapTable::mark_in_use() {
    if (!store_.header().bitmaps || !store_.writable()) co_return Result<void>{};
    std::vector<std::uint8_t> raw = serialize(false);
    if (raw.size() != store_.header().bitmaps->directory_bytes)
        co_return Result<void>{}; // the directory on disk is older still
    ConstBytes all(raw);
    CO_TRY(co_await write_bytes(store_.file(), store_.header().bitmaps->directory_offset, all));
    Result<void> flushed = co_await store_.file().flush();
    co_return flushed;
}

Task<Result<void>> BitmapTable::start_recording() {
    AsyncLock lock = co_await mutex_.lock();
    if (recording_) co_return Result<void>{};
    bool mark = false;
    for (Bitmap& b : all_) {
        if (!b.enabled || b.in_use || b.other) continue;
        CO_TRY(co_await read_bits(b));
        mark |= b.table_offset && !b.marked;
        b.marked = true;
    }
    if (mark && !directory_changed_) {
        CO_TRY(co_await mark_in_use());
    }
    recording_ = true;
    co_return Result<void>{};
}

void BitmapTable::record(std::uint64_t offset, std::uint64_t length) {
    if (length == 0) return;
    for (Bitmap& b : all_)
        if (b.enabled && b.loaded && !b.in_use)
            set_bits(b, offset >> b.granularity_bits, (offset + length - 1) >> b.granularity_bits);
}

Task<Result<void>> BitmapTable::resize(std::uint64_t new_size) {
    for (Bitmap& b : all_) {
        if (b.in_use || b.other) continue;
        CO_TRY(co_await read_bits(b));
    }
    disk_size_ = new_size;
    for (Bitmap& b : all_) {
        if (b.in_use || b.other) continue;
        std::uint64_t bits = bit_count(b, new_size);
        b.bits.resize(div_ceil<std::uint64_t>(bits, 8));
        if (bits % 8) b.bits.back() &= std::uint8_t((1u << (bits % 8)) - 1);
        b.changed = true;
    }
    co_return Result<void>{};
}

Task<Result<void>> BitmapTable::store() {
    AsyncLock lock = co_await mutex_.lock();
    bool const any_changed =
        directory_changed_ || std::ranges::any_of(all_, [](Bitmap const& b) { return b.changed || b.marked; });
    if (!any_changed) co_return Result<void>{};
    std::vector<Extent> replaced = removed_;
    for (Bitmap& b : all_) {
        if (b.changed || !b.table_offset) {
            CO_TRY(co_await write_bits(b, replaced));
        }
        b.marked = false;
    }
    Header& h = store_.header();
    if (h.bitmaps)
        replaced.push_back({h.bitmaps->directory_offset, div_ceil(h.bitmaps->directory_bytes, g_.cluster()), false});
    std::optional<BitmapsExtension> ext;
    if (!all_.empty()) {
        std::vector<std::uint8_t> raw = serialize(true);
        if (raw.size() > max_bitmap_directory_bytes) co_return Error("The bitmap directory would be too large", EFBIG);
        CO_TRY_ASSIGN(Extent place,
                      co_await store_.refcounts().allocate_exact(div_ceil<std::uint64_t>(raw.size(), g_.cluster())));
        ConstBytes all(raw);
        CO_TRY(co_await write_bytes(store_.file(), place.offset, all));
        ext = BitmapsExtension{std::uint32_t(all_.size()), raw.size(), place.offset};
    }
    CO_TRY(co_await store_.commit());
    if (h.bitmaps)
        store_.areas().remove(h.bitmaps->directory_offset, h.bitmaps->directory_bytes, Area::bitmap_directory);
    h.bitmaps = ext;
    h.autoclear = ext ? h.autoclear | autoclear_bitmaps : h.autoclear & ~autoclear_bitmaps;
    CO_TRY(co_await store_.write_header());
    if (ext) store_.areas().add(ext->directory_offset, ext->directory_bytes, Area::bitmap_directory);
    for (Extent const& extent : replaced) store_.release(extent.offset, extent.clusters);
    removed_.clear();
    directory_changed_ = recording_ = false;
    Result<void> settled = co_await store_.settle();
    co_return settled;
}

// --- the capability

std::vector<BitmapInfo> BitmapTable::bitmaps() const {
    std::vector<BitmapInfo> out;
    for (Bitmap const& b : all_)
        out.push_back({b.name, std::uint32_t(1) << b.granularity_bits, b.enabled, b.in_use, true});
    return out;
}

Result<BitmapTable::Bitmap*> BitmapTable::usable(std::string const& name) {
    auto found = std::ranges::find(all_, name, &Bitmap::name);
    if (found == all_.end()) return no_such_bitmap(name);
    if (found->in_use || found->other)
        return Error(
            fmt::format(
                "Bitmap '{}' is inconsistent and cannot be used\nTry block-dirty-bitmap-remove to delete this bitmap "
                "from disk",
                name),
            EINVAL);
    return &*found;
}

Task<Result<void>> BitmapTable::add_bitmap(BitmapInfo info) {
    if (!store_.writable()) co_return Error("Operation not permitted", EPERM);
    if (store_.header().version < 3) co_return Error("Cannot store dirty bitmaps in qcow2 v2 files", EINVAL);
    if (info.name.empty()) co_return Error("Bitmap name cannot be empty", EINVAL);
    if (info.name.size() > max_name_bytes) co_return Error("Bitmap name too long", EINVAL);
    if (std::ranges::find(all_, info.name, &Bitmap::name) != all_.end())
        co_return Error(fmt::format("Bitmap already exists: {}", info.name), EEXIST);
    if (!is_power_of_two(info.granularity_bytes)) co_return Error("Granularity must be power of 2", EINVAL);
    unsigned bits = unsigned(std::countr_zero(info.granularity_bytes));
    if (bits < min_granularity_bits || bits > max_granularity_bits)
        co_return Error(fmt::format("Granularity must be between {} and {} bytes", 1ull << min_granularity_bits,
                                    1ull << max_granularity_bits),
                        EINVAL);
    if (all_.size() >= max_bitmaps) co_return Error("Maximum number of persistent bitmaps is already reached", EFBIG);
    Bitmap b;
    b.name = std::move(info.name);
    b.granularity_bits = bits;
    b.enabled = info.enabled;
    CO_TRY(co_await read_bits(b)); // nothing in the file: all clear
    b.changed = true;
    all_.push_back(std::move(b));
    directory_changed_ = true;
    co_return Result<void>{};
}

Task<Result<void>> BitmapTable::remove_bitmap(std::string name) {
    if (!store_.writable()) co_return Error("Operation not permitted", EPERM);
    auto found = std::ranges::find(all_, name, &Bitmap::name);
    if (found == all_.end()) co_return no_such_bitmap(name);
    CO_TRY(co_await list_extents(*found, removed_));
    all_.erase(found);
    directory_changed_ = true;
    co_return Result<void>{};
}

Task<Result<void>> BitmapTable::clear_bitmap(std::string name) {
    CO_TRY_ASSIGN(Bitmap * b, usable(name));
    if (!store_.writable()) co_return Error("Operation not permitted", EPERM);
    CO_TRY(co_await read_bits(*b));
    std::ranges::fill(b->bits, 0);
    b->changed = true;
    co_return Result<void>{};
}

Task<Result<void>> BitmapTable::set_bitmap_enabled(std::string name, bool enabled) {
    CO_TRY_ASSIGN(Bitmap * b, usable(name));
    if (!store_.writable()) co_return Error("Operation not permitted", EPERM);
    if (b->enabled == enabled) co_return Result<void>{};
    b->enabled = enabled;
    directory_changed_ = true;
    recording_ = false;
    co_return Result<void>{};
}

Task<Result<void>> BitmapTable::mark_dirty(std::string name, std::uint64_t offset, std::uint64_t length) {
    CO_TRY_ASSIGN(Bitmap * b, usable(name));
    CO_TRY(check_range(offset, length, disk_size_));
    if (!store_.writable()) co_return Error("Operation not permitted", EPERM);
    if (length == 0) co_return Result<void>{};
    CO_TRY(co_await read_bits(*b));
    set_bits(*b, offset >> b->granularity_bits, (offset + length - 1) >> b->granularity_bits);
    co_return Result<void>{};
}

Task<Result<DirtyBitmaps::Stretch>> BitmapTable::bitmap_status(std::string name, std::uint64_t offset) {
    CO_TRY_ASSIGN(Bitmap * b, usable(name));
    CO_TRY(check_range(offset, 1, disk_size_));
    CO_TRY(co_await read_bits(*b));
    std::uint64_t const bits = bit_count(*b, disk_size_), first = offset >> b->granularity_bits;
    auto bit = [&](std::uint64_t i) { return (b->bits[i / 8] >> (i % 8) & 1) != 0; };
    bool const dirty = bit(first);
    std::uint8_t const same = dirty ? 0xff : 0;
    std::uint64_t end = first + 1;
    while (end < bits) {
        if (end % 8 == 0 && bits - end >= 8 && b->bits[end / 8] == same)
            end += 8;
        else if (bit(end) == dirty)
            ++end;
        else
            break;
    }
    std::uint64_t end_byte = end >= bits ? disk_size_ : end << b->granularity_bits;
    co_return Stretch{offset, end_byte - offset, dirty};
}

} // namespace vmm::block::qcow2
