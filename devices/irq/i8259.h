// I8259Pair: the PC's two cascaded 8259A interrupt controllers with PIIX's edge/level control registers (ELCR).
// Datasheets: Intel 8259A (order 231468), PIIX3 section 2.5.12 (ELCR).
#pragma once
#include "devices/core/irq_inputs.h"
#include "devices/core/roles.h"
#include "devices/irq/ext_int_source.h"
#include "vmm/base/log.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>

namespace vmm::dev {

// Device lock held for every member.
class I8259Pair final : public Resettable, public Snapshottable, public ExtIntSource {
public:
    struct Needs {
        IrqLine& intr; // the master's INT pin: LINT0 of the local APICs (and IO-APIC pin 0 where wired)
        Log& log;
    };
    // One 8259A, by the datasheet's register names.
    struct Chip {
        std::uint8_t irr = 0;          // latched edges and present levels
        std::uint8_t imr = 0;          // OCW1
        std::uint8_t isr = 0;          // in service
        std::uint8_t lines = 0;        // pin levels; they belong to the devices and survive reset
        std::uint8_t elcr = 0;         // 1 = level triggered
        std::uint8_t vector_base = 0;  // ICW2 T7..T3
        std::uint8_t first = 0;        // the input with the highest priority (rotation)
        std::uint8_t expected_icw = 0; // 0: initialised; 2, 3, 4: the ICW the next write to A0=1 is
        bool icw4_needed = false;
        bool single = false;
        bool special_fully_nested = false;
        bool auto_eoi = false;
        bool rotate_on_auto_eoi = false;
        bool special_mask = false;
        bool read_isr = false;
        bool poll = false;
    };
    struct State {
        std::array<Chip, 2> chips; // master, slave
    };

    explicit I8259Pair(Needs needs);

    // The 16 ISA interrupt inputs; 2 is the cascade and ignores its caller.
    IrqLine& input(unsigned irq) { return inputs_[irq]; }
    // Port windows: 0x20 and 0xa0 (2 bytes each), 0x4d0 (2 bytes).
    IoHandler& master_ports() { return master_ports_; }
    IoHandler& slave_ports() { return slave_ports_; }
    IoHandler& elcr_ports() { return elcr_ports_; }

    int acknowledge() override;
    // Level of the INT pin.
    bool interrupt_requested() const { return intr_; }

    // What firmware does: vectors at 0x08 and 0x70, what a PC always has unmasked, PCI's interrupts level-triggered.
    // For booting without firmware; `levels`: ELCR.
    void set_up_as_firmware(std::uint16_t levels);

    void reset() override;
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;
    // Takes over a state, wherever it comes from; errors: values it cannot have.
    Result<void> adopt(State const& state);
    State const& state() const { return state_; }

    void set_input(unsigned irq, bool level);
    static constexpr unsigned cascade = 2; // the master's input the slave's INT drives

private:
    struct ChipPorts final : IoHandler {
        I8259Pair& pair;
        unsigned index;
        ChipPorts(I8259Pair& p, unsigned i) : pair(p), index(i) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    };
    struct ElcrPorts final : IoHandler {
        I8259Pair& pair;
        explicit ElcrPorts(I8259Pair& p) : pair(p) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    };

    void write_icw1(Chip& chip, std::uint8_t value);
    void write_ocw2(Chip& chip, std::uint8_t value);
    void write_ocw3(Chip& chip, std::uint8_t value);
    void write_data(Chip& chip, std::uint8_t value);
    std::uint8_t read_chip(unsigned index, bool data);
    void set_pin(Chip& chip, unsigned pin, bool level);
    int pending(Chip const& chip) const;
    int acknowledge_chip(unsigned index);
    void update();

    Needs needs_;
    State state_;
    bool intr_ = false; // derived from state_
    IrqInputs<I8259Pair, 16> inputs_;
    ChipPorts master_ports_, slave_ports_;
    ElcrPorts elcr_ports_;
};

template <class V> void fields(V& v, I8259Pair::Chip& s) {
    v.field("irr", s.irr);
    v.field("imr", s.imr);
    v.field("isr", s.isr);
    v.field("lines", s.lines);
    v.field("elcr", s.elcr);
    v.field("vector_base", s.vector_base);
    v.field("first", s.first);
    v.field("expected_icw", s.expected_icw);
    v.field("icw4_needed", s.icw4_needed);
    v.field("single", s.single);
    v.field("special_fully_nested", s.special_fully_nested);
    v.field("auto_eoi", s.auto_eoi);
    v.field("rotate_on_auto_eoi", s.rotate_on_auto_eoi);
    v.field("special_mask", s.special_mask);
    v.field("read_isr", s.read_isr);
    v.field("poll", s.poll);
}
template <class V> void fields(V& v, I8259Pair::State& s) {
    v.field("master", s.chips[0]);
    v.field("slave", s.chips[1]);
}

} // namespace vmm::dev
