// The qcow (version 1) header as it lies in the file, and the limits we accept.
#pragma once
#include "vmm/base/endian.h"
#include "vmm/base/result.h"

#include <string>

namespace vmm::block::qcow {

inline constexpr std::uint32_t magic = 0x514649fb; // "QFI\xfb"
inline constexpr std::uint64_t entry_compressed = std::uint64_t(1) << 63;
inline constexpr std::uint32_t crypt_none = 0, crypt_aes = 1;
inline constexpr std::uint32_t max_backing_name = 1023;
inline constexpr std::uint64_t max_l1_entries = 1u << 23; // 64 MiB

struct Header {
    be32 magic{qcow::magic};
    be32 version{1};
    be64 backing_offset{};
    be32 backing_size{};
    be32 mtime{};
    be64 size{};
    std::uint8_t cluster_bits = 12;
    std::uint8_t l2_bits = 9;
    be16 padding{};
    be32 crypt_method{};
    be64 l1_offset{};

    std::uint64_t cluster_bytes() const { return std::uint64_t(1) << cluster_bits; }
    std::uint64_t l2_entries() const { return std::uint64_t(1) << l2_bits; }
    std::uint64_t l1_entries() const {
        unsigned shift = cluster_bits + l2_bits;
        return (size >> shift) + ((size & ((std::uint64_t(1) << shift) - 1)) != 0);
    }
};
static_assert(sizeof(Header) == 48);

Result<void> validate(Header const& header, std::string const& filename);

} // namespace vmm::block::qcow
