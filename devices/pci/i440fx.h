// I440fx: the host bridge 82441FX (8086:1237 at 00:00.0): PAM shadow RAM of 0xc0000-0xfffff and SMRAM.
#pragma once
#include "devices/pci/function.h"

#include <array>
#include <functional>

namespace vmm::dev {

// RAM is mapped by the board at pci_priority::ram over its whole range; the bridge lays what PAM and SMRAM send to PCI
// over it at pci_priority::hole: the firmware ROM below 1 MiB, and nothing. Device lock.
class I440fx final : public Resettable, public Snapshottable {
public:
    static constexpr unsigned segment_count = 13;
    struct State {
        PciFunction::State pci{};
    };
    struct Needs {
        AddressSpace& memory;
        RamBlock& ram;                           // the block whose offset is the physical address, for SMRAM
        RamBlock* firmware = nullptr;            // its last bytes (at most 128 KiB) end at 0xfffff; may be absent
        std::function<void()> on_smram_enable{}; // smram_enabled() has changed; may be absent
    };
    explicit I440fx(Needs needs);
    ~I440fx() override;

    PciFunction& function() { return function_; }
    // What firmware does before it starts an operating system: RAM, readable and writable, over 0xc0000-0xfffff. For
    // booting without firmware; a reset undoes it.
    void enable_shadow_ram();
    // Whether 0xa0000-0xbffff is RAM for a CPU in system management mode.
    bool smram_enabled() const;

    void reset() override { function_.reset(); }
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    // Answers for what PCI does not claim.
    struct Nothing final : IoHandler {
        std::uint64_t read(std::uint64_t, unsigned) override { return ~std::uint64_t(0); }
        void write(std::uint64_t, unsigned, std::uint64_t) override {}
    };
    struct Segment {
        std::uint8_t mode = 3;         // RE and WE as mapped now; 3 maps nothing
        std::vector<MappingId> hiding; // what covers RAM
    };
    void apply();
    void apply_segment(unsigned index, std::uint8_t mode);
    void apply_smram();

    Needs needs_;
    PciFunction function_;
    Nothing nothing_;
    std::array<Segment, segment_count> segments_;
    MappingId vga_hole_ = 0;
    std::optional<MappingId> open_smram_;
    bool smram_was_enabled_ = false;
};

} // namespace vmm::dev
