// IoHandler: a device's view of the bus. Offsets are relative to its own region.
#pragma once
#include <cstdint>

namespace vmm {

using GuestPhys = std::uint64_t; // an address on a guest's memory bus (or port number on its I/O bus)

// Which access sizes a region takes (bytes, powers of two up to 8). The bus splits or widens guest accesses so that a
// handler sees only sizes from min_impl to max_impl, naturally aligned unless `unaligned`; guest accesses outside
// min_guest..max_guest read as all ones and write nothing (the architected "no decode").
struct AccessRules {
    std::uint8_t min_guest = 1, max_guest = 8;
    std::uint8_t min_impl = 1, max_impl = 8;
    bool unaligned = false;
};

// Implemented by devices. Called with the device lock held. `size` is 1, 2, 4 or 8; values are little-endian numbers,
// zero-extended; write values have no bits above the size.
class IoHandler {
public:
    virtual ~IoHandler() = default;
    virtual std::uint64_t read(std::uint64_t offset, unsigned size) = 0;
    virtual void write(std::uint64_t offset, unsigned size, std::uint64_t value) = 0;
};

} // namespace vmm
