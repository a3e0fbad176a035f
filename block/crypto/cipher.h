// SectorCipher: encryption of disk sectors, each on its own.
#pragma once
#include "block/core/io_spans.h"

#include <cstdint>

namespace vmm::block {

// Immutable once made; any thread. Data is a whole number of 512-byte sectors, `sector` the number of the first.
class SectorCipher {
public:
    static constexpr std::uint32_t sector_bytes = 512;
    virtual ~SectorCipher() = default;
    // False when the library failed (out of memory); the data is then undefined.
    [[nodiscard]] virtual bool encrypt(std::uint64_t sector, Bytes data) const = 0;
    [[nodiscard]] virtual bool decrypt(std::uint64_t sector, Bytes data) const = 0;
};

} // namespace vmm::block
