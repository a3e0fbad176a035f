#include "block/formats/qcow2/header.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>
#include <array>

namespace vmm::block::qcow2 {

namespace {

struct RawHeader {
    be32 magic, version;
    be64 backing_file_offset;
    be32 backing_file_size, cluster_bits;
    be64 size;
    be32 crypt_method, l1_size;
    be64 l1_table_offset, refcount_table_offset;
    be32 refcount_table_clusters, nb_snapshots;
    be64 snapshots_offset;
    // version 3
    be64 incompatible_features, compatible_features, autoclear_features;
    be32 refcount_order, header_length;
    std::uint8_t compression_type;
    std::uint8_t padding[7];
};
static_assert(sizeof(RawHeader) == v3_header_bytes);
constexpr std::uint32_t v3_minimum_bytes = 104;

enum ExtensionType : std::uint32_t {
    extension_end = 0,
    extension_backing_format = 0xe2792aca,
    extension_feature_names = 0x6803f857,
    extension_bitmaps = 0x23852875,
    extension_crypto = 0x0537be77,
    extension_data_file = 0x44415441,
};

struct FeatureName {
    std::uint8_t type, bit;
    std::string_view name;
};
constexpr FeatureName feature_names[] = {
    {0, 0, "dirty bit"},        {0, 1, "corrupt bit"},         {0, 2, "external data file"},
    {0, 3, "compression type"}, {0, 4, "extended L2 entries"}, {1, 0, "lazy refcounts"},
    {2, 0, "bitmaps"},          {2, 1, "raw external data"},
};
constexpr std::size_t feature_name_entry = 48;

// Checks one table: aligned to clusters, not wrapping, entries within the limit.
Result<void> check_table(std::string_view what, std::uint64_t offset, std::uint64_t entries, std::uint64_t entry_bytes,
                         std::uint64_t max_bytes, unsigned cluster_bits) {
    if (entries > max_bytes / entry_bytes) return error("{} too large", what);
    if (offset & ((1ull << cluster_bits) - 1)) return error("{} offset invalid: not aligned to a cluster", what);
    if (offset > max_host_offset - entries * entry_bytes)
        return error("{} offset invalid: beyond the largest file", what);
    return {};
}

std::string text_of(ConstBytes data) { return std::string(reinterpret_cast<char const*>(data.data()), data.size()); }

// Names of the incompatible bits we do not know, from the image's own table where it has one.
std::string unknown_feature_names(std::uint64_t bits, ConstBytes table) {
    std::string names;
    auto add = [&](std::string_view name) { names += (names.empty() ? "" : ", ") + std::string(name); };
    for (std::size_t at = 0; at + feature_name_entry <= table.size(); at += feature_name_entry) {
        if (table[at] != 0 || table[at + 1] > 63 || !(bits >> table[at + 1] & 1)) continue;
        std::string name = text_of(table.subspan(at + 2, feature_name_entry - 2));
        add(name.substr(0, name.find('\0')));
        bits &= ~(1ull << table[at + 1]);
    }
    if (bits) add(fmt::format("Unknown incompatible feature: {:x}", bits));
    return names;
}

Result<void> take_extension(Header& h, std::uint32_t type, ConstBytes data, ConstBytes& feature_table) {
    switch (type) {
    case extension_backing_format:
        if (data.size() > 255) return error("Backing format extension is too long ({} bytes)", data.size());
        h.backing_format = text_of(data);
        return {};
    case extension_feature_names: feature_table = data; return {};
    case extension_data_file: h.data_file = text_of(data); return {};
    case extension_crypto: {
        if (data.size() != 16) return error("CRYPTO header extension size {} instead of 16", data.size());
        CryptoPointer p{load_le<std::uint64_t>(data.data()), load_le<std::uint64_t>(data.data() + 8)};
        p = {byte_swap(p.offset), byte_swap(p.length)};
        TRY(check_table("Encryption header", p.offset, p.length, 1, 64u << 20, h.cluster_bits));
        h.crypto = p;
        return {};
    }
    case extension_bitmaps: {
        if (data.size() != 24) return error("bitmaps_ext: Invalid extension length {}", data.size());
        if (!(h.autoclear & autoclear_bitmaps)) return {}; // written by a program that did not know bitmaps: void
        BitmapsExtension b;
        b.count = byte_swap(load_le<std::uint32_t>(data.data()));
        b.directory_bytes = byte_swap(load_le<std::uint64_t>(data.data() + 8));
        b.directory_offset = byte_swap(load_le<std::uint64_t>(data.data() + 16));
        if (load_le<std::uint32_t>(data.data() + 4)) return error("bitmaps_ext: Reserved field is not zero");
        if (b.count == 0 || b.count > max_bitmaps)
            return error("bitmaps_ext: image has {} bitmaps, allowed are 1 to {}", b.count, max_bitmaps);
        if (b.directory_bytes == 0) return error("bitmaps_ext: bitmap_directory_size is zero");
        TRY(check_table("bitmaps_ext: bitmap_directory", b.directory_offset, b.directory_bytes, 1,
                        max_bitmap_directory_bytes, h.cluster_bits));
        h.bitmaps = b;
        return {};
    }
    default: h.unknown.push_back({type, std::vector<std::uint8_t>(data.begin(), data.end())}); return {};
    }
}

// The extension area lies between the header and the backing file name (or the end of the cluster).
Result<void> parse_extensions(Header& h, ConstBytes cluster, std::size_t at, std::size_t end,
                              ConstBytes& feature_table) {
    while (at + 8 <= end) {
        std::uint32_t type = byte_swap(load_le<std::uint32_t>(cluster.data() + at));
        std::uint32_t length = byte_swap(load_le<std::uint32_t>(cluster.data() + at + 4));
        at += 8;
        if (type == extension_end) return {};
        if (length > end - at) return error("Header extension too large (type {:#x}, {} bytes)", type, length);
        TRY(take_extension(h, type, cluster.subspan(at, length), feature_table));
        at += align_up<std::uint64_t>(length, 8);
    }
    return {};
}

Result<void> check_version3(Header& h, RawHeader const& raw, ConstBytes cluster) {
    std::uint32_t length = raw.header_length;
    if (length < v3_minimum_bytes) return error("qcow2 header too short");
    if (length > cluster.size()) return error("qcow2 header exceeds cluster size");
    if (length % 8) return error("qcow2 header length {} is not a multiple of 8", length);
    h.incompatible = raw.incompatible_features;
    h.compatible = raw.compatible_features;
    h.autoclear = raw.autoclear_features;
    if (raw.refcount_order > 6) return error("Reference count entry width too large; may not exceed 64 bits");
    h.refcount_order = raw.refcount_order;
    std::uint8_t compression = length > v3_minimum_bytes ? raw.compression_type : 0;
    if (h.has(incompatible_compression) != (compression != 0))
        return error("qcow2: Compression type incompatible feature bit must be {}set", compression ? "" : "un");
    if (compression > 1) return error("qcow2: unknown compression type: {}", compression);
    h.compression = CompressionType(compression);
    if (length > v3_header_bytes) h.unknown_fields.assign(cluster.begin() + v3_header_bytes, cluster.begin() + length);
    return {};
}

Result<void> check_fields(Header const& h, std::uint64_t file_bytes) {
    if (h.extended_l2() && h.cluster_bits < min_extended_cluster_bits)
        return error("Cluster size {} is too small for extended L2 entries (cluster_bits)", 1u << h.cluster_bits);
    if ((h.autoclear & autoclear_raw_data_file) && !h.external_data())
        return error("Raw external data bit is set without an external data file (autoclear_features)");
    if (std::uint32_t(h.crypt_method) > 2)
        return error("Unsupported encryption method {}", std::uint32_t(h.crypt_method));
    if (h.size_bytes > std::uint64_t(INT64_MAX)) return error("Image size {} is too large (size)", h.size_bytes);
    TRY(check_table("Reference count table", h.refcount_table_offset,
                    std::uint64_t(h.refcount_table_clusters) << h.cluster_bits, 1, max_refcount_table_bytes,
                    h.cluster_bits));
    if (h.refcount_table_clusters == 0) return error("Image does not contain a reference count table");
    if (h.refcount_table_offset == 0 || h.refcount_table_offset >= file_bytes)
        return error("Reference count table offset invalid: {:#x}", h.refcount_table_offset);
    TRY(check_table("Active L1 table", h.l1_offset, h.l1_entries, 8, max_l1_bytes, h.cluster_bits));
    if (h.l1_entries && h.l1_offset == 0) return error("Active L1 table offset invalid: 0");
    unsigned l2_bits = h.cluster_bits - (h.extended_l2() ? 4 : 3);
    if (div_ceil<std::uint64_t>(h.size_bytes, 1ull << (h.cluster_bits + l2_bits)) > h.l1_entries)
        return error("L1 table is too small (l1_size)");
    if (h.snapshot_count > max_snapshots) return error("Snapshot table too large (nb_snapshots: {})", h.snapshot_count);
    TRY(check_table("Snapshot table", h.snapshots_offset, 0, 1, 1, h.cluster_bits));
    if (h.snapshot_count && h.external_data())
        return error("Snapshots are not possible with an external data file (nb_snapshots)");
    return {};
}

std::vector<std::uint8_t> serialize_fixed_fields(Header const& h);

} // namespace

bool looks_like_qcow2(ConstBytes start) {
    if (start.size() < 24) return false;
    std::uint32_t version = byte_swap(load_le<std::uint32_t>(start.data() + 4));
    return byte_swap(load_le<std::uint32_t>(start.data())) == magic && version >= 2;
}

Result<unsigned> cluster_bits_of(ConstBytes start) {
    if (start.size() < 24 || byte_swap(load_le<std::uint32_t>(start.data())) != magic)
        return Error("Image is not in qcow2 format", EINVAL);
    std::uint32_t version = byte_swap(load_le<std::uint32_t>(start.data() + 4));
    if (version < 2 || version > 3) return Error(fmt::format("Unsupported qcow2 version {}", version), ENOTSUP);
    std::uint32_t bits = byte_swap(load_le<std::uint32_t>(start.data() + 20));
    if (bits < min_cluster_bits || bits > max_cluster_bits)
        return Error(fmt::format("Unsupported cluster size: 2^{}", bits), EINVAL);
    return bits;
}

Result<Header> parse_header(ConstBytes cluster, std::uint64_t file_bytes) {
    Header h;
    h.cluster_bits = TRY(cluster_bits_of(cluster));
    if (cluster.size() < v2_header_bytes) return error("qcow2 header too short");
    RawHeader raw{};
    std::memcpy(&raw, cluster.data(), std::min(sizeof raw, cluster.size()));
    h.version = raw.version;
    h.size_bytes = raw.size;
    h.crypt_method = CryptMethod(std::uint32_t(raw.crypt_method));
    h.l1_entries = raw.l1_size;
    h.l1_offset = raw.l1_table_offset;
    h.refcount_table_offset = raw.refcount_table_offset;
    h.refcount_table_clusters = raw.refcount_table_clusters;
    h.snapshot_count = raw.nb_snapshots;
    h.snapshots_offset = raw.snapshots_offset;
    if (h.version >= 3) TRY(check_version3(h, raw, cluster));

    std::uint64_t const name_at = raw.backing_file_offset;
    std::uint32_t const name_bytes = raw.backing_file_size;
    std::size_t const header_end = h.version == 2 ? v2_header_bytes : std::uint32_t(raw.header_length);
    std::size_t extensions_end = cluster.size();
    if (name_at) {
        if (name_at > (1ull << h.cluster_bits) || name_at < header_end)
            return error("Invalid backing file offset {:#x}", name_at);
        extensions_end = std::min<std::size_t>(extensions_end, name_at);
        if (name_bytes > max_backing_name_bytes || name_bytes > (1ull << h.cluster_bits) - name_at)
            return error("Backing file name too long (backing_file_size: {})", name_bytes);
        if (name_at + name_bytes > cluster.size())
            return error("Could not read backing file name: the file is too short");
        h.backing_file = text_of(cluster.subspan(name_at, name_bytes));
        if (h.backing_file.find('\0') != std::string::npos) return error("The backing file name holds a NUL byte");
    }
    ConstBytes feature_table;
    TRY(parse_extensions(h, cluster, header_end, extensions_end, feature_table));
    if (std::uint64_t bad = h.incompatible & ~known_incompatible)
        return Error(fmt::format("Unsupported qcow2 feature(s): {}", unknown_feature_names(bad, feature_table)),
                     ENOTSUP);
    h.feature_names = h.version >= 3;
    TRY(check_fields(h, file_bytes));
    if (h.crypt_method == CryptMethod::luks && !h.crypto)
        return error("CRYPTO header extension is missing for LUKS encryption");
    return h;
}

namespace {

std::vector<std::uint8_t> serialize_fixed_fields(Header const& h) {
    RawHeader raw{};
    raw.magic = magic;
    raw.version = h.version;
    raw.cluster_bits = h.cluster_bits;
    raw.size = h.size_bytes;
    raw.crypt_method = std::uint32_t(h.crypt_method);
    raw.l1_size = h.l1_entries;
    raw.l1_table_offset = h.l1_offset;
    raw.refcount_table_offset = h.refcount_table_offset;
    raw.refcount_table_clusters = h.refcount_table_clusters;
    raw.nb_snapshots = h.snapshot_count;
    raw.snapshots_offset = h.snapshots_offset;
    raw.incompatible_features = h.incompatible;
    raw.compatible_features = h.compatible;
    raw.autoclear_features = h.autoclear;
    raw.refcount_order = h.refcount_order;
    raw.header_length = h.header_bytes();
    raw.compression_type = std::uint8_t(h.compression);
    std::vector<std::uint8_t> out(h.header_bytes());
    std::memcpy(out.data(), &raw, std::min<std::size_t>(sizeof raw, out.size()));
    if (h.version >= 3) std::ranges::copy(h.unknown_fields, out.begin() + v3_header_bytes);
    return out;
}

class ExtensionWriter {
public:
    explicit ExtensionWriter(std::vector<std::uint8_t>& out) : out_(out) {}
    void add(std::uint32_t type, ConstBytes data) {
        number<be32>(type);
        number<be32>(std::uint32_t(data.size()));
        out_.insert(out_.end(), data.begin(), data.end());
        out_.resize(align_up<std::size_t>(out_.size(), 8));
    }
    void add(std::uint32_t type, std::string_view text) {
        add(type, ConstBytes(reinterpret_cast<std::uint8_t const*>(text.data()), text.size()));
    }

private:
    template <class T> void number(T value) {
        auto const* bytes = reinterpret_cast<std::uint8_t const*>(&value);
        out_.insert(out_.end(), bytes, bytes + sizeof value);
    }
    std::vector<std::uint8_t>& out_;
};

template <class T> ConstBytes bytes_of(T const& value) {
    return {reinterpret_cast<std::uint8_t const*>(&value), sizeof value};
}

std::vector<std::uint8_t> feature_name_table() {
    std::vector<std::uint8_t> out;
    for (FeatureName const& f : feature_names) {
        std::array<std::uint8_t, feature_name_entry> entry{f.type, f.bit};
        std::ranges::copy(f.name, entry.begin() + 2);
        out.insert(out.end(), entry.begin(), entry.end());
    }
    return out;
}

} // namespace

Result<std::vector<std::uint8_t>> serialize_header(Header const& h) {
    std::vector<std::uint8_t> out = serialize_fixed_fields(h);
    std::uint64_t const cluster = 1ull << h.cluster_bits;
    ExtensionWriter extensions(out);
    if (h.backing_format) extensions.add(extension_backing_format, *h.backing_format);
    if (h.external_data() && !h.data_file.empty()) extensions.add(extension_data_file, h.data_file);
    if (h.crypto) {
        std::array<be64, 2> p{be64(h.crypto->offset), be64(h.crypto->length)};
        extensions.add(extension_crypto, bytes_of(p));
    }
    std::vector<std::uint8_t> names = feature_name_table();
    std::size_t needed = out.size() + 8 + names.size() + 64 + h.backing_file.size();
    if (h.version >= 3 && h.feature_names && needed <= cluster) extensions.add(extension_feature_names, names);
    if (h.bitmaps) {
        struct {
            be32 count, reserved;
            be64 directory_bytes, directory_offset;
        } b{h.bitmaps->count, 0u, h.bitmaps->directory_bytes, h.bitmaps->directory_offset};
        extensions.add(extension_bitmaps, bytes_of(b));
    }
    for (UnknownExtension const& u : h.unknown) extensions.add(u.type, u.data);
    extensions.add(extension_end, std::string_view());
    if (!h.backing_file.empty()) {
        if (h.backing_file.size() > max_backing_name_bytes) return error("Backing file name too long");
        be64 at(std::uint64_t(out.size()));
        be32 size(std::uint32_t(h.backing_file.size()));
        std::memcpy(out.data() + 8, &at, sizeof at);
        std::memcpy(out.data() + 16, &size, sizeof size);
        out.insert(out.end(), h.backing_file.begin(), h.backing_file.end());
    }
    if (out.size() > cluster)
        return Error(
            fmt::format("The header with its names and extensions ({} bytes) does not fit into a cluster of {} bytes",
                        out.size(), cluster),
            ENOSPC);
    out.resize(cluster);
    return out;
}

} // namespace vmm::block::qcow2
