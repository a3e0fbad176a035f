// Port92: system control port A (I/O 0x92) of a PC: fast A20 gate and fast CPU reset.
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "vmm/memory/io_handler.h"

namespace vmm::dev {

// One byte at 0x92. Bit 0 (write): a 0 to 1 change pulses the reset line. Bit 1: level of the A20 line; the board ORs
// it with the keyboard controller's. Other bits are stored. Device lock.
class Port92 final : public IoHandler, public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t region_size = 1;
    static constexpr AccessRules access_rules{.max_impl = 1};
    struct State {
        std::uint8_t control = 0;
    };
    struct Needs {
        IrqLine& a20;
        IrqLine& reset;
    };
    explicit Port92(Needs needs) : needs_(needs) {}

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    Needs needs_;
    State state_;
};

} // namespace vmm::dev
