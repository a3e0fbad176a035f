// The qcow2 header: its fields, feature bits and extensions, parsed and written back.
#pragma once
#include "block/core/io_spans.h"
#include "vmm/base/result.h"

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmm::block::qcow2 {

inline constexpr std::uint32_t magic = 0x514649fb; // "QFI\xfb"
inline constexpr std::uint32_t v2_header_bytes = 72, v3_header_bytes = 112;

// Named limits: what a file may ask us to hold in memory.
inline constexpr unsigned min_cluster_bits = 9, max_cluster_bits = 21;
inline constexpr unsigned min_extended_cluster_bits = 14;
inline constexpr std::uint64_t max_l1_bytes = 32u << 20;
inline constexpr std::uint64_t max_refcount_table_bytes = 8u << 20;
inline constexpr std::uint32_t max_snapshots = 65536;
inline constexpr std::uint64_t max_snapshot_table_bytes = 64u << 20;
inline constexpr std::uint32_t max_snapshot_extra_bytes = 1024;
inline constexpr std::uint32_t max_backing_name_bytes = 1023;
inline constexpr std::uint32_t max_bitmaps = 65535;
inline constexpr std::uint64_t max_bitmap_directory_bytes = 64u << 20;
inline constexpr std::uint64_t max_bitmap_table_entries = 0x8000000 / 8;
inline constexpr std::uint64_t max_host_offset = 1ull << 56; // what L1 and L2 entries can name

// incompatible_features
inline constexpr std::uint64_t incompatible_dirty = 1, incompatible_corrupt = 2, incompatible_data_file = 4,
                               incompatible_compression = 8, incompatible_extended_l2 = 16;
inline constexpr std::uint64_t known_incompatible = 31;
inline constexpr std::uint64_t compatible_lazy_refcounts = 1;
inline constexpr std::uint64_t autoclear_bitmaps = 1, autoclear_raw_data_file = 2;

enum class CryptMethod : std::uint32_t { none = 0, aes = 1, luks = 2 };
enum class CompressionType : std::uint8_t { zlib = 0, zstd = 1 };

// The bitmaps extension (specification, "Bitmaps extension").
struct BitmapsExtension {
    std::uint32_t count = 0;
    std::uint64_t directory_bytes = 0, directory_offset = 0;
};
// The full disk encryption header pointer.
struct CryptoPointer {
    std::uint64_t offset = 0, length = 0;
};
// An extension we do not know: kept as it is.
struct UnknownExtension {
    std::uint32_t type = 0;
    std::vector<std::uint8_t> data;
};

// Plain values, host byte order.
struct Header {
    std::uint32_t version = 3;
    unsigned cluster_bits = 16;
    std::uint64_t size_bytes = 0;
    CryptMethod crypt_method = CryptMethod::none;
    std::uint32_t l1_entries = 0;
    std::uint64_t l1_offset = 0;
    std::uint64_t refcount_table_offset = 0;
    std::uint32_t refcount_table_clusters = 0;
    std::uint32_t snapshot_count = 0;
    std::uint64_t snapshots_offset = 0;
    std::uint64_t incompatible = 0, compatible = 0, autoclear = 0;
    unsigned refcount_order = 4;
    CompressionType compression = CompressionType::zlib;
    std::vector<std::uint8_t> unknown_fields; // of a header longer than ours

    std::string backing_file;
    std::optional<std::string> backing_format;
    std::string data_file;
    std::optional<BitmapsExtension> bitmaps;
    std::optional<CryptoPointer> crypto;
    bool feature_names = true; // a feature name table is written
    std::vector<UnknownExtension> unknown;

    bool has(std::uint64_t incompatible_bit) const { return (incompatible & incompatible_bit) != 0; }
    bool extended_l2() const { return has(incompatible_extended_l2); }
    bool external_data() const { return has(incompatible_data_file); }
    bool raw_external_data() const { return external_data() && (autoclear & autoclear_raw_data_file) != 0; }
    bool lazy_refcounts() const { return (compatible & compatible_lazy_refcounts) != 0; }
    std::uint32_t header_bytes() const {
        return version == 2 ? v2_header_bytes : v3_header_bytes + std::uint32_t(unknown_fields.size());
    }
};

// True for a file that begins like a qcow2 image of a version we know.
bool looks_like_qcow2(ConstBytes start);
// The cluster size of a file that looks_like_qcow2; errors for one we cannot handle. Needs 24 bytes.
Result<unsigned> cluster_bits_of(ConstBytes start);
// Parses the first cluster of a file of `file_bytes`. Every offset and size is checked for alignment, limits and
// overflow; errors name the field.
Result<Header> parse_header(ConstBytes first_cluster, std::uint64_t file_bytes);
// The whole first cluster. "…too large" when names and extensions do not fit.
Result<std::vector<std::uint8_t>> serialize_header(Header const& header);

} // namespace vmm::block::qcow2
