// Qcow2Image::open: from a file to an image.
#include "block/formats/qcow2/image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace vmm::block::qcow2 {

namespace {

Task<Result<Header>> read_header(BlockDevice& file) {
    std::uint64_t const file_bytes = file.size_bytes();
    std::vector<std::uint8_t> start(std::min<std::uint64_t>(file_bytes, v2_header_bytes));
    if (!start.empty()) {
        Bytes all(start);
        Result<void> got = co_await read_bytes(file, 0, all);
        if (!got.ok()) co_return got.error().with_prefix("Could not read qcow2 header");
    }
    CO_TRY_ASSIGN(unsigned bits, cluster_bits_of(start));
    std::vector<std::uint8_t> cluster(std::min<std::uint64_t>(file_bytes, 1ull << bits));
    Bytes all(cluster);
    Result<void> got = co_await read_bytes(file, 0, all);
    if (!got.ok()) co_return got.error().with_prefix("Could not read qcow2 header");
    co_return parse_header(cluster, file_bytes);
}

Task<Result<std::unique_ptr<BlockDevice>>> open_data_file(BlockContext& context, OpenOptions const& options,
                                                          Header const& header, std::string const& image_name,
                                                          std::string& name) {
    OpenOptions data;
    data.tree = options.tree.sub("data-file");
    data.filename = data.tree.text_or("filename", "");
    if (data.filename.empty() && !header.data_file.empty())
        data.filename = resolve_backing_filename(image_name, header.data_file);
    if (data.filename.empty() && data.tree.empty()) co_return error("'data-file' is required for this image");
    data.read_only = options.read_only;
    data.cache = options.cache;
    data.aio = options.aio;
    data.discard = options.discard;
    data.locking = options.locking;
    data.share_rw = options.share_rw;
    data.force_share = options.force_share;
    name = data.filename;
    Result<std::unique_ptr<BlockDevice>> device = co_await open_protocol(context, std::move(data));
    if (!device.ok()) co_return device.error().with_prefix("Could not open data file");
    co_return device;
}

Result<void> take_cache_sizes(OptionValues const& given, Store::Setup& setup) {
    std::uint64_t const cluster = 1ull << setup.header.cluster_bits;
    std::uint64_t const smallest = 4 * cluster; // refcount blocks, when the rest goes to L2 tables
    bool const l2 = given.has("l2-cache-size"), refcounts = given.has("refcount-cache-size");
    setup.l2_cache_bytes = TRY(given.size("l2-cache-size", setup.l2_cache_bytes));
    setup.refcount_cache_bytes = TRY(given.size("refcount-cache-size", setup.refcount_cache_bytes));
    if (given.has("cache-size")) {
        std::uint64_t both = TRY(given.size("cache-size", 0));
        if (l2 && refcounts)
            return error("cache-size, l2-cache-size and refcount-cache-size may not be set at the same time");
        if (l2 && setup.l2_cache_bytes > both) return error("l2-cache-size may not exceed cache-size");
        if (refcounts && setup.refcount_cache_bytes > both)
            return error("refcount-cache-size may not exceed cache-size");
        if (!l2) setup.l2_cache_bytes = both - (refcounts ? setup.refcount_cache_bytes : std::min(both, smallest));
        if (!refcounts) setup.refcount_cache_bytes = both - setup.l2_cache_bytes;
    }
    std::uint64_t entry = TRY(given.size("l2-cache-entry-size", cluster));
    if (!std::has_single_bit(entry) || entry < 512 || entry > cluster)
        return error("L2 cache entry size must be a power of two between 512 and the cluster size ({})", cluster);
    return {};
}

// overlap-check=LEVEL or overlap-check.template=LEVEL, and single areas switched on or off beside it.
Result<AreaSet> overlap_checks(OptionValues const& given) {
    constexpr AreaSet constant = area_bit(Area::header) | area_bit(Area::active_l1) | area_bit(Area::refcount_table) |
                                 area_bit(Area::snapshot_table) | area_bit(Area::bitmap_directory) |
                                 area_bit(Area::encryption_header) | area_bit(Area::disputed);
    constexpr std::pair<std::string_view, AreaSet> levels[] = {
        {"none", 0}, {"constant", constant}, {"cached", cheap_areas}, {"all", all_areas}};
    constexpr std::pair<char const*, Area> single[] = {
        {"overlap-check.main-header", Area::header},
        {"overlap-check.active-l1", Area::active_l1},
        {"overlap-check.active-l2", Area::active_l2},
        {"overlap-check.refcount-table", Area::refcount_table},
        {"overlap-check.refcount-block", Area::refcount_block},
        {"overlap-check.snapshot-table", Area::snapshot_table},
        {"overlap-check.inactive-l1", Area::inactive_l1},
        {"overlap-check.inactive-l2", Area::inactive_l2},
        {"overlap-check.bitmap-directory", Area::bitmap_directory},
    };
    std::optional<std::string> level = given.text("overlap-check");
    if (std::optional<std::string> under = given.text("overlap-check.template")) {
        if (level && *level != *under)
            return error("Conflicting values for qcow2 options 'overlap-check' ('{}') and 'overlap-check.template' "
                         "('{}')",
                         *level, *under);
        level = under;
    }
    auto found = std::ranges::find(levels, level.value_or("cached"), [](auto const& one) { return one.first; });
    if (found == std::end(levels))
        return error("Unsupported value '{}' for qcow2 option 'overlap-check'. Allowed are any of the following: none, "
                     "constant, "
                     "cached, all",
                     *level);
    AreaSet areas = found->second;
    for (auto const& [name, area] : single) {
        bool const on = TRY(given.boolean(name, (areas & area_bit(area)) != 0));
        areas = AreaSet(on ? areas | area_bit(area) : areas & ~area_bit(area));
    }
    return areas;
}

} // namespace

Task<Result<std::unique_ptr<Qcow2Image>>> Qcow2Image::open(FormatOpenArgs args) {
    OpenOptions const options = args.options;
    CO_TRY_ASSIGN(Header header, co_await read_header(*args.file));
    bool const writable = !args.file->read_only();
    if (writable && header.has(incompatible_corrupt) && !options.for_check)
        co_return Error("qcow2: Image is corrupt; cannot be opened read/write", EACCES);
    Store::Setup setup{
        .context = args.context, .file = std::move(args.file), .filename = args.filename, .header = std::move(header)};
    setup.writable = writable;
    setup.discard = options.discard == DiscardMode::unmap;
    CO_TRY(take_cache_sizes(options.tree, setup));
    CO_TRY_ASSIGN(AreaSet checked, overlap_checks(options.tree));
    Parts parts;
    parts.store = std::make_unique<Store>(std::move(setup));
    parts.store->areas().check_only(checked);
    Header const& h = parts.store->header();
    parts.no_io = options.no_io && (h.external_data() || h.crypt_method != CryptMethod::none);
    CO_TRY(co_await parts.store->load());
    if (parts.store->header().external_data() && !parts.no_io) {
        CO_TRY_ASSIGN(parts.data_file, co_await open_data_file(args.context, options, parts.store->header(),
                                                               args.filename, parts.data_filename));
    }
    CO_TRY_ASSIGN(parts.encryption, co_await open_encryption(*parts.store, options));
    if (h.crypt_method != CryptMethod::none && !parts.encryption.cipher) parts.no_io = true;
    // Features a writer must clear that does not know them, lest they describe an older state.
    std::uint64_t const known = autoclear_bitmaps | autoclear_raw_data_file;
    if (writable && (parts.store->header().autoclear & ~known)) {
        parts.store->header().autoclear &= known;
        CO_TRY(co_await parts.store->write_features());
    }
    auto image = std::make_unique<Qcow2Image>(std::move(parts));
    CO_TRY(co_await image->finish_open(options));
    co_return std::move(image);
}

Task<Result<void>> Qcow2Image::finish_open(OpenOptions const& options) {
    Result<void> snapshots = co_await snapshots_->load();
    Result<void> bitmaps = co_await bitmaps_->load();
    if (!snapshots.ok() && !options.for_check) co_return snapshots;
    if (!bitmaps.ok() && !options.for_check) co_return bitmaps;
    // Not closed by a program with lazy refcounts: the counts are set right before anything builds on them.
    if (store_->header().has(incompatible_dirty) && store_->writable() && !options.for_check) {
        auto silent = [](std::string_view) {};
        CO_TRY_ASSIGN(CheckReport report, co_await check(RepairMode::all, silent));
        if (report.corruptions || report.check_errors) co_return Error("Could not repair dirty image", EIO);
    }
    co_return Result<void>{};
}

} // namespace vmm::block::qcow2
