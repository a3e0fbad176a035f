// PciConfigPorts: PCI configuration mechanism #1 at I/O 0xcf8-0xcff (PCI Local Bus 3.0 section 3.2.2.3.2; 82441FX
// CONFADD and CONFDATA).
#pragma once
#include "devices/core/roles.h"
#include "devices/pci/bus.h"

namespace vmm::dev {

// Eight ports. CONFADD is a doubleword register: narrower accesses to 0xcf8-0xcfb pass on to the ISA bus, where the
// byte at 0xcf9 is the chipset's reset control. Device lock.
class PciConfigPorts final : public IoHandler, public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t port = 0xcf8, region_size = 8;
    static constexpr AccessRules access_rules{.max_guest = 4, .max_impl = 4};
    struct State {
        std::uint32_t address = 0; // CONFADD
    };
    struct Needs {
        PciBus& bus;
        IoHandler& reset_control; // one byte, at 0xcf9
    };
    explicit PciConfigPorts(Needs needs) : needs_(needs) {}

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override { state_ = State{}; }
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    bool selects(std::uint64_t offset, unsigned size) const;

    Needs needs_;
    State state_;
};

} // namespace vmm::dev
