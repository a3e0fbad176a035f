// SmmMemory: what a PC's CPU in system management mode sees: everything else that is mapped, and the SMRAM that the
// host bridge hides behind 0xa0000-0xbffff.
#pragma once
#include "vmm/memory/address_space.h"

#include <functional>
#include <vector>

namespace vmm {

// Device lock for every member but space(), which is looked up like any other.
class SmmMemory {
public:
    // `enabled` says whether the bridge shows SMRAM to SMM; `ram` is the block whose offset is the physical address.
    SmmMemory(AddressSpace& normal, RamBlock& ram, std::function<bool()> enabled);
    ~SmmMemory();
    SmmMemory(SmmMemory const&) = delete;
    SmmMemory& operator=(SmmMemory const&) = delete;

    // The bridge's register has changed.
    void refresh();
    AddressSpace& space() { return space_; }

    static constexpr GuestPhys base = 0xa0000;
    static constexpr std::uint64_t size = 0x20000;

private:
    AddressSpace& normal_;
    RamBlock& ram_;
    std::function<bool()> enabled_;
    AddressSpace space_{"SMM memory", ~std::uint64_t(0)};
    std::vector<MappingId> mappings_;
    unsigned listener_;
};

} // namespace vmm
