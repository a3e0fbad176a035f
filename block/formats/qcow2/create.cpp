#include "block/formats/qcow2/create.h"

#include "block/formats/qcow2/crypto.h"
#include "block/formats/qcow2/image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace vmm::block::qcow2 {

namespace {

constexpr OptionSpec options_table[] = {
    {"encryption", OptionType::boolean,
     "Encrypt the image with format 'aes'. (Deprecated in favor of encrypt.format=aes)"},
    {"encrypt.format", OptionType::string, "Encrypt the image, format choices: 'aes', 'luks'"},
    {"encrypt.key-secret", OptionType::string, "ID of secret providing qcow AES key or LUKS passphrase"},
    {"encrypt.cipher-alg", OptionType::string, "Name of encryption cipher algorithm"},
    {"encrypt.cipher-mode", OptionType::string, "Name of encryption cipher mode"},
    {"encrypt.ivgen-alg", OptionType::string, "Name of IV generator algorithm"},
    {"encrypt.ivgen-hash-alg", OptionType::string, "Name of IV generator hash algorithm"},
    {"encrypt.hash-alg", OptionType::string, "Name of encryption hash algorithm"},
    {"encrypt.iter-time", OptionType::number, "Time to spend in PBKDF in milliseconds", {}, true},
    {"cluster_size", OptionType::size, "qcow2 cluster size", "65536"},
    {"extended_l2", OptionType::boolean, "Extended L2 tables", "off"},
    {"preallocation", OptionType::string, "Preallocation mode (allowed values: off, metadata, falloc, full)"},
    {"compression_type", OptionType::string, "Compression method used for image cluster compression", "zlib"},
    {"size", OptionType::size, "Virtual disk size", {}, true},
    {"compat", OptionType::string, "Compatibility level (v2 [0.10] or v3 [1.1])", {}, true},
    {"backing_file", OptionType::string, "File name of a base image", {}, true},
    {"backing_fmt", OptionType::string, "Image format of the base image", {}, true},
    {"data_file", OptionType::string, "File name of an external data file", {}, true},
    {"data_file_raw", OptionType::boolean, "The external data file must stay valid as a raw image", {}, true},
    {"lazy_refcounts", OptionType::boolean, "Postpone refcount updates", "off", true},
    {"refcount_bits", OptionType::number, "Width of a reference count entry in bits", "16", true},
};

Result<void> take_version_features(Header& h, OptionValues const& options) {
    std::uint64_t refcount_bits = TRY(options.number("refcount_bits", 16));
    if (!is_power_of_two(refcount_bits) || refcount_bits > 64)
        return error("Refcount width must be a power of two and may not exceed 64 bits");
    h.refcount_order = unsigned(std::countr_zero(refcount_bits));
    bool lazy = TRY(options.boolean("lazy_refcounts", false));
    bool extended = TRY(options.boolean("extended_l2", false));
    std::string compression = options.text_or("compression_type", "zlib");
    if (compression != "zlib" && compression != "zstd")
        return error("Parameter 'compression-type' does not accept value '{}'", compression);
    constexpr std::string_view too_old =
        "only supported with compatibility level 1.1 and above (use version=v3 or greater)";
    if (h.version < 3) {
        if (refcount_bits != 16)
            return error("Different refcount widths than 16 bits require compatibility level 1.1 or above (use "
                         "version=v3 or greater)");
        if (lazy) return error("Lazy refcounts {}", too_old);
        if (extended) return error("Extended L2 entries are {}", too_old);
        if (compression != "zlib") return error("Non-zlib compression type is {}", too_old);
    }
    if (lazy) h.compatible |= compatible_lazy_refcounts;
    if (extended) h.incompatible |= incompatible_extended_l2;
    if (compression == "zstd") {
        h.compression = CompressionType::zstd;
        h.incompatible |= incompatible_compression;
    }
    if (extended && h.cluster_bits < min_extended_cluster_bits)
        return error("Extended L2 entries are only supported with cluster sizes of at least {} bytes",
                     1u << min_extended_cluster_bits);
    return {};
}

Result<void> take_files(Header& h, OptionValues const& options) {
    h.backing_file = options.text_or("backing_file", "");
    if (h.backing_file.size() > max_backing_name_bytes) return error("Backing file name too long");
    if (auto format = options.text("backing_fmt"); format && !format->empty()) h.backing_format = *format;
    h.data_file = options.text_or("data_file", "");
    bool raw = TRY(options.boolean("data_file_raw", false));
    if (raw && h.data_file.empty()) return error("data-file-raw requires data-file");
    if (raw && !h.backing_file.empty()) return error("Backing file and data-file-raw cannot be used at the same time");
    if (h.data_file.empty()) return {};
    if (h.version < 3)
        return error("External data files are only supported with compatibility level 1.1 and above (use version=v3 or "
                     "greater)");
    h.incompatible |= incompatible_data_file;
    if (raw) h.autoclear |= autoclear_raw_data_file;
    return {};
}

// Header, refcount table and one refcount block: an empty disk without L1.
Task<Result<void>> write_empty_image(BlockDevice& file, Header& h) {
    std::uint64_t const cluster = 1ull << h.cluster_bits;
    h.refcount_table_offset = cluster;
    h.refcount_table_clusters = 1;
    h.size_bytes = 0;
    CO_TRY_ASSIGN(std::vector<std::uint8_t> first, serialize_header(h));
    std::vector<std::uint8_t> all(3 * cluster);
    std::ranges::copy(first, all.begin());
    store_be64(all.data() + cluster, 2 * cluster);
    for (std::uint64_t i = 0; i < 3; ++i) store_refcount(all.data() + 2 * cluster, i, h.refcount_order, 1);
    ConstBytes bytes(all);
    Result<void> result = co_await write_bytes(file, 0, bytes);
    co_return result;
}

} // namespace

Result<std::uint32_t> parse_compat(std::string const& text) {
    if (text == "0.10" || text == "v2") return std::uint32_t(2);
    if (text == "1.1" || text == "v3") return std::uint32_t(3);
    return error("Parameter 'version' does not accept value '{}'", text);
}

std::span<OptionSpec const> create_options() { return options_table; }

Result<Header> header_from_options(OptionValues const& options) {
    Header h;
    std::uint64_t cluster = TRY(options.size("cluster_size", 65536));
    if (!is_power_of_two(cluster) || cluster < (1u << min_cluster_bits) || cluster > (1u << max_cluster_bits))
        return error("Cluster size must be a power of two between 512 and 2048k");
    h.cluster_bits = unsigned(std::countr_zero(cluster));
    h.version = TRY(parse_compat(options.text_or("compat", "1.1")));
    TRY(take_version_features(h, options));
    TRY(take_files(h, options));
    return h;
}

Task<Result<void>> create_image(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(Header header, header_from_options(request.options));
    std::string mode = request.options.text_or("preallocation", "off");
    CO_TRY_ASSIGN(Preallocation preallocation, parse_preallocation(mode));
    // Readers that do not know of the data file's format find every cluster in its place.
    bool const raw_data = (header.autoclear & autoclear_raw_data_file) != 0;
    if (raw_data && preallocation == Preallocation::off) preallocation = Preallocation::metadata;
    if (preallocation != Preallocation::off && !header.backing_file.empty() && !header.extended_l2())
        co_return error("Backing file and preallocation can only be used at the same time if extended_l2 is on");
    CO_TRY_ASSIGN(CryptMethod method, requested_encryption(request.options));
    if (request.options.has("data_file") && header.data_file.empty())
        co_return error("Could not create '': No such file or directory");
    if (method != CryptMethod::none && request.options.text_or("encrypt.key-secret", "").empty())
        co_return error("Parameter 'encrypt.key-secret' is required for cipher");
    std::uint64_t const size = align_up<std::uint64_t>(request.size_bytes, 512);
    if (size > std::uint64_t(INT64_MAX) || Geometry(header).l1_entries_for(size) > max_l1_bytes / 8)
        co_return Error("The image size is too large for file format 'qcow2' (try using a larger cluster size)", EFBIG);
    if (header.external_data()) {
        std::string name = resolve_backing_filename(request.filename, header.data_file);
        CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> data, co_await create_file(context, name, 0, request.file_options));
    }
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, 0, request.file_options));
    CO_TRY(co_await write_empty_image(*file, header));
    FormatOpenArgs args{context, std::move(file), request.filename, {}};
    args.options.cache = request.cache;
    CO_TRY_ASSIGN(std::unique_ptr<Qcow2Image> image, co_await Qcow2Image::open(std::move(args)));
    ResizeRequest resize{.new_size_bytes = size, .preallocation = preallocation};
    Result<void> result = co_await add_encryption(image->store(), request.options);
    if (result.ok()) result = co_await image->resize(resize);
    Result<void> closed = co_await image->close();
    if (result.ok()) result = closed;
    co_return result;
}

Result<Format::Measure> measure_image(std::uint64_t size, std::uint64_t allocated, OptionValues const& options) {
    Header h = TRY(header_from_options(options));
    Geometry g(h);
    std::uint64_t const cluster = g.cluster();
    size = align_up<std::uint64_t>(size, 512);
    if (size > std::uint64_t(INT64_MAX) || g.l1_entries_for(size) > max_l1_bytes / 8)
        return error("The image size is too large for file format 'qcow2' (try using a larger cluster size)");
    std::uint64_t const data = align_up(size, cluster);
    std::uint64_t tables = div_ceil(div_ceil(data, cluster) * g.l2_entry_bytes(), cluster);
    std::uint64_t meta = cluster + align_up(tables * 8, cluster) + tables * cluster; // header, L1, L2
    // Refcount blocks and their table count themselves: iterate to the fixed point.
    std::uint64_t blocks = 0, table_clusters = 0;
    for (;;) {
        std::uint64_t all = (data + meta) / cluster + blocks + table_clusters;
        std::uint64_t now = div_ceil(all, g.refcount_entries()), table_now = div_ceil(now * 8, cluster);
        if (now == blocks && table_now == table_clusters) break;
        blocks = now;
        table_clusters = table_now;
    }
    meta += (blocks + table_clusters) * cluster;
    if (TRY(requested_encryption(options)) == CryptMethod::luks) {
        LuksCreateOptions luks;
        luks.cipher_alg = options.text_or("encrypt.cipher-alg", luks.cipher_alg);
        luks.cipher_mode = options.text_or("encrypt.cipher-mode", luks.cipher_mode);
        meta += align_up(TRY(luks_area_bytes(luks)), cluster);
    }
    Format::Measure m;
    m.fully_allocated = meta + data;
    Preallocation const mode = TRY(parse_preallocation(options.text_or("preallocation", "off")));
    bool const all = mode == Preallocation::falloc || mode == Preallocation::full;
    m.required = all ? m.fully_allocated : meta + std::min(align_up(allocated, cluster), data);
    m.has_bitmaps = h.version >= 3;
    return m;
}

} // namespace vmm::block::qcow2
