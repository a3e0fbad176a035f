// Shapes of the tables: how offsets split into indices, and what the bits of L1, L2 and refcount entries mean.
#pragma once
#include "block/formats/qcow2/header.h"
#include "vmm/base/endian.h"

#include <bit>
#include <cstdint>

namespace vmm::block::qcow2 {

inline constexpr std::uint64_t entry_offset_mask = 0x00fffffffffffe00ull;
inline constexpr std::uint64_t entry_copied = 1ull << 63;
inline constexpr std::uint64_t entry_compressed = 1ull << 62;
inline constexpr std::uint64_t entry_zero = 1; // without extended L2 entries
inline constexpr std::uint64_t l1_reserved = 0x7f000000000001ffull;
inline constexpr std::uint64_t l2_reserved = 0x3f000000000001feull; // of standard clusters
inline constexpr std::uint64_t refcount_table_reserved = 0x1ff;

inline std::uint64_t load_be64(void const* from) { return byte_swap(load_le<std::uint64_t>(from)); }
inline void store_be64(void* to, std::uint64_t value) { store_le(to, byte_swap(value)); }

// Sizes that follow from the header.
struct Geometry {
    unsigned cluster_bits = 16;
    unsigned refcount_order = 4;
    bool extended = false;

    explicit Geometry(Header const& h)
        : cluster_bits(h.cluster_bits), refcount_order(h.refcount_order), extended(h.extended_l2()) {}

    std::uint64_t cluster() const { return 1ull << cluster_bits; }
    std::uint64_t cluster_mask() const { return cluster() - 1; }
    unsigned l2_entry_bytes() const { return extended ? 16 : 8; }
    unsigned l2_bits() const { return cluster_bits - (extended ? 4 : 3); }
    std::uint64_t l2_entries() const { return 1ull << l2_bits(); }
    std::uint64_t l2_coverage() const { return 1ull << (cluster_bits + l2_bits()); } // guest bytes of one L2 table
    std::uint64_t l1_index(std::uint64_t guest) const { return guest >> (cluster_bits + l2_bits()); }
    std::uint64_t l2_index(std::uint64_t guest) const { return (guest >> cluster_bits) & (l2_entries() - 1); }
    unsigned subclusters() const { return extended ? 32 : 1; }
    unsigned subcluster_bits() const { return cluster_bits - (extended ? 5 : 0); }
    std::uint64_t subcluster() const { return 1ull << subcluster_bits(); }
    std::uint64_t refcount_entries() const { return (cluster() * 8) >> refcount_order; } // of one refcount block
    std::uint64_t max_refcount() const { return refcount_order == 6 ? ~0ull : (1ull << (1u << refcount_order)) - 1; }
    // Entries an L1 table needs for `size` guest bytes.
    std::uint64_t l1_entries_for(std::uint64_t size) const {
        return (size >> (cluster_bits + l2_bits())) + ((size & (l2_coverage() - 1)) != 0);
    }
    // Where the VM-state area begins: behind the last L1 entry of the disk.
    std::uint64_t vm_state_offset(std::uint64_t disk_size) const { return l1_entries_for(disk_size) * l2_coverage(); }
};

// Host bytes of a compressed cluster: from the first byte to the end of its last 512-byte sector.
struct CompressedExtent {
    std::uint64_t offset = 0, length = 0;
};
inline CompressedExtent compressed_extent(std::uint64_t entry, unsigned cluster_bits) {
    unsigned shift = 62 - (cluster_bits - 8);
    std::uint64_t offset = entry & ((1ull << shift) - 1);
    std::uint64_t sectors = ((entry >> shift) & ((1ull << (cluster_bits - 8)) - 1)) + 1;
    return {offset, sectors * 512 - (offset & 511)};
}
inline std::uint64_t compressed_entry(std::uint64_t offset, std::uint64_t length, unsigned cluster_bits) {
    unsigned shift = 62 - (cluster_bits - 8);
    std::uint64_t sectors = ((offset & 511) + length + 511) / 512;
    return entry_compressed | offset | (sectors - 1) << shift;
}
// The largest offset a compressed cluster may begin at.
inline std::uint64_t max_compressed_offset(unsigned cluster_bits) {
    std::uint64_t field = 1ull << (62 - (cluster_bits - 8));
    return field < max_host_offset ? field : max_host_offset;
}

// One L2 entry: the descriptor and, with extended entries, the subcluster bitmap (bit 0-31 allocated, 32-63 zero).
struct L2Entry {
    std::uint64_t descriptor = 0, bitmap = 0;

    bool compressed() const { return (descriptor & entry_compressed) != 0; }
    bool copied() const { return (descriptor & entry_copied) != 0; }
    std::uint64_t host() const { return descriptor & entry_offset_mask; }
    std::uint32_t allocated_bits() const { return std::uint32_t(bitmap); }
    std::uint32_t zero_bits() const { return std::uint32_t(bitmap >> 32); }
    bool empty() const { return descriptor == 0 && bitmap == 0; }
};

// What a subcluster (or a whole cluster, without extended entries) is.
enum class Kind : std::uint8_t {
    unallocated, // the backing file's, or zero
    zero,
    data, // at the host offset
    compressed,
};

// `external`: clusters lie in an external data file, where host offset 0 is as good as any.
inline Kind kind_of(L2Entry const& e, unsigned subcluster, Geometry const& g, bool external) {
    if (e.compressed()) return Kind::compressed;
    if (g.extended) {
        if (e.bitmap >> (32 + subcluster) & 1) return Kind::zero;
        return e.bitmap >> subcluster & 1 ? Kind::data : Kind::unallocated;
    }
    if (e.descriptor & entry_zero) return Kind::zero;
    return e.host() || (external && e.copied()) ? Kind::data : Kind::unallocated;
}
// A host cluster belongs to the entry (perhaps only preallocated under zeroes).
inline bool has_host_cluster(L2Entry const& e, bool external) {
    return !e.compressed() && (e.host() || (external && e.copied()));
}

inline L2Entry load_l2_entry(std::uint8_t const* table, std::uint64_t index, bool extended) {
    if (!extended) return {load_be64(table + index * 8), 0};
    return {load_be64(table + index * 16), load_be64(table + index * 16 + 8)};
}

// Refcount `index` of a block; widths under a byte are packed from the least significant bit on.
inline std::uint64_t load_refcount(std::uint8_t const* block, std::uint64_t index, unsigned order) {
    switch (order) {
    case 3: return block[index];
    case 4: return byte_swap(load_le<std::uint16_t>(block + index * 2));
    case 5: return byte_swap(load_le<std::uint32_t>(block + index * 4));
    case 6: return load_be64(block + index * 8);
    default: {
        unsigned width = 1u << order, per_byte = 8 / width;
        return block[index / per_byte] >> (index % per_byte * width) & ((1u << width) - 1);
    }
    }
}
inline void store_refcount(std::uint8_t* block, std::uint64_t index, unsigned order, std::uint64_t value) {
    switch (order) {
    case 3: block[index] = std::uint8_t(value); break;
    case 4: store_le(block + index * 2, byte_swap(std::uint16_t(value))); break;
    case 5: store_le(block + index * 4, byte_swap(std::uint32_t(value))); break;
    case 6: store_be64(block + index * 8, value); break;
    default: {
        unsigned width = 1u << order, per_byte = 8 / width, shift = unsigned(index % per_byte) * width;
        unsigned mask = ((1u << width) - 1) << shift;
        block[index / per_byte] = std::uint8_t((block[index / per_byte] & ~mask) | (unsigned(value) << shift));
    }
    }
}

} // namespace vmm::block::qcow2
