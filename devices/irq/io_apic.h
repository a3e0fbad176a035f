// IoApic: Intel 82093AA I/O APIC (order 290566), with the EOI register of later versions (version 0x20).
#pragma once
#include "devices/core/irq_inputs.h"
#include "devices/core/roles.h"
#include "devices/irq/apic_bus.h"
#include "vmm/base/log.h"
#include "vmm/memory/io_handler.h"

#include <array>

namespace vmm::dev {

// Device lock held for every member. The MMIO window is 0x1000 bytes (0xfec00000 on a PC); accesses are 32 bits wide.
class IoApic final : public IoHandler, public Resettable, public Snapshottable {
public:
    static constexpr unsigned pins = 24;
    enum class Version : std::uint8_t { v11 = 0x11, v20 = 0x20 }; // 0x20 adds the EOI register
    struct Needs {
        ApicBus& bus;
        Log& log;
    };
    struct Config {
        Version version = Version::v20;
        std::uint8_t id = 0;
    };
    struct State {
        std::uint32_t id = 0;                          // IOAPICID, bits 27..24
        std::uint8_t select = 0;                       // IOREGSEL
        std::uint32_t lines = 0;                       // pin levels; they belong to the devices and survive reset
        std::array<std::uint64_t, pins> redirection{}; // IOREDTBL
    };

    IoApic(Needs needs, Config config);

    // Input pins. set(true) is "asserted" whatever polarity the guest programs: our wires carry meaning, not voltage.
    IrqLine& input(unsigned pin) { return inputs_[pin]; }
    // From the bus: a CPU ended a level-triggered interrupt.
    void end_of_interrupt(std::uint8_t vector);

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override;
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;
    // Takes over a state, wherever it comes from; errors: values it cannot have.
    Result<void> adopt(State const& state);
    State const& state() const { return state_; }

    void set_input(unsigned pin, bool level);

private:
    std::uint32_t read_register() const;
    void write_register(std::uint32_t value);
    void write_redirection(unsigned pin, std::uint64_t value);
    void send(unsigned pin);
    void service_level(unsigned pin);

    Needs needs_;
    Config config_;
    State state_;
    IrqInputs<IoApic, pins> inputs_;
};

template <class V> void fields(V& v, IoApic::State& s) {
    v.field("id", s.id);
    v.field("select", s.select);
    v.field("lines", s.lines);
    v.field("redirection", s.redirection);
}

} // namespace vmm::dev
