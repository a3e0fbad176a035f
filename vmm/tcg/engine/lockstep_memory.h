// ShadowMemory: a second copy of a machine's RAM under the same address map, for an engine that repeats what another
// did.
#pragma once
#include "vmm/cpu/cpu_bus.h"

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace vmm::tcg {

// Used on one thread, while nobody else writes the original RAM.
class ShadowMemory {
public:
    // Copies the RAM that the bus `original` (which outlives the object) shows now. Errors: no memory for a second
    // copy.
    static Result<std::unique_ptr<ShadowMemory>> create(CpuBus& original);

    // The map: the original's RAM pieces as pieces of the copies; everything else is missing.
    AddressSpace& space() { return space_; }
    // Shows the pieces that `original` shows now, if they have changed. Errors: no memory for RAM that has come along.
    Result<void> follow_map();
    // Makes every copied byte equal again.
    void copy_contents();
    // Where the original of a byte of a copy is; null when it is of no copy.
    std::uint8_t* original_of(std::uint8_t const* at) const;
    // The first byte in which the copies differ: "pc.ram+0x1234: 01 in the original, 02 in the copy".
    std::optional<std::string> find_difference() const;
    // The same for [at, at+size), which lies in a copy.
    std::optional<std::string> find_difference(std::uint8_t const* at, unsigned size) const;

private:
    struct Twin {
        RamBlock* original;
        std::unique_ptr<RamBlock> copy;
    };
    explicit ShadowMemory(CpuBus& original) : original_(original) {}
    Result<RamBlock*> copy_of(RamBlock& original);
    static void for_each_page(Twin const& twin, std::function<bool(std::uint64_t offset)> const& visit);

    CpuBus& original_;
    FlatView const* shown_ = nullptr;
    std::vector<Twin> twins_;
    std::vector<MappingId> mappings_;
    AddressSpace space_{"shadow memory", ~std::uint64_t(0)};
};

} // namespace vmm::tcg
