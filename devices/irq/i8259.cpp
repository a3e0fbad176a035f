#include "devices/irq/i8259.h"

#include <bit>

namespace vmm::dev {

namespace {
// Inputs that PIIX wires to edge-triggered sources whatever ELCR says: 0 (timer), 1 (keyboard), 2 (cascade) and 8
// (RTC), 13 (FPU error).
constexpr std::array<std::uint8_t, 2> elcr_writable = {0xf8, 0xde};

constexpr std::uint8_t icw1_select = 0x10, icw1_icw4_needed = 0x01, icw1_single = 0x02;
constexpr std::uint8_t icw4_auto_eoi = 0x02, icw4_special_fully_nested = 0x10;
constexpr std::uint8_t ocw3_select = 0x08, ocw3_read_isr = 0x01, ocw3_read_register = 0x02, ocw3_poll = 0x04,
                       ocw3_special_mask = 0x20, ocw3_enable_special_mask = 0x40;

// Position of the highest-priority bit of `bits` when input `first` comes first; 8 when there is none.
unsigned priority(std::uint8_t bits, unsigned first) {
    return bits ? unsigned(std::countr_zero(std::rotr(bits, int(first)))) : 8;
}
} // namespace

I8259Pair::I8259Pair(Needs needs)
    : needs_(needs), inputs_(*this), master_ports_(*this, 0), slave_ports_(*this, 1), elcr_ports_(*this) {}

void I8259Pair::reset() {
    for (Chip& chip : state_.chips) chip = Chip{.lines = chip.lines};
    update();
}

void I8259Pair::set_up_as_firmware(std::uint16_t levels) {
    constexpr std::uint8_t masks[] = {0xb8, 0x8e}; // open: timer, keyboard, cascade, floppy; RTC, mouse, FPU, IDE
    for (std::size_t i = 0; i < 2; ++i) {
        Chip& chip = state_.chips[i];
        chip = Chip{.imr = masks[i],
                    .lines = chip.lines,
                    .elcr = std::uint8_t(levels >> (8 * i) & elcr_writable[i]),
                    .vector_base = std::uint8_t(i == 0 ? 0x08 : 0x70)};
        chip.irr = chip.lines & chip.elcr;
    }
    update();
}

Result<void> I8259Pair::load(StateReader& from) { return adopt(TRY(load_state<State>(from))); }

Result<void> I8259Pair::adopt(State const& loaded) {
    for (std::size_t i = 0; i < 2; ++i) {
        Chip const& chip = loaded.chips[i];
        if (chip.first > 7 || chip.expected_icw == 1 || chip.expected_icw > 4 || (chip.vector_base & 7) ||
            (chip.elcr & ~elcr_writable[i]))
            return error("the interrupt controller's state holds values an 8259A cannot have");
    }
    state_ = loaded;
    update();
    return {};
}

void I8259Pair::set_input(unsigned irq, bool level) {
    if (irq == cascade) return;
    set_pin(state_.chips[irq / 8], irq % 8, level);
    update();
}

void I8259Pair::set_pin(Chip& chip, unsigned pin, bool level) {
    auto bit = std::uint8_t(1u << pin);
    if (chip.elcr & bit)
        chip.irr = level ? chip.irr | bit : chip.irr & ~bit;
    else if (level && !(chip.lines & bit))
        chip.irr |= bit; // the edge stays latched when the line falls, so that a short pulse is not lost
    chip.lines = level ? chip.lines | bit : chip.lines & ~bit;
}

// The input the chip asserts INT for, or -1.
int I8259Pair::pending(Chip const& chip) const {
    if (chip.expected_icw) return -1;
    unsigned candidate = priority(chip.irr & ~chip.imr, chip.first);
    std::uint8_t in_service = chip.isr;
    if (chip.special_mask) in_service &= ~chip.imr;
    // In the special fully nested mode a slave in service does not lock out its own higher-priority requests.
    if (chip.special_fully_nested && &chip == &state_.chips[0]) in_service &= ~(1u << cascade);
    return candidate < priority(in_service, chip.first) ? int((candidate + chip.first) & 7) : -1;
}

void I8259Pair::update() {
    set_pin(state_.chips[0], cascade, pending(state_.chips[1]) >= 0);
    intr_ = pending(state_.chips[0]) >= 0;
    needs_.intr.set(intr_);
}

// Takes the chip's pending input (7 when there is none any more: the spurious interrupt, which sets no ISR bit).
int I8259Pair::acknowledge_chip(unsigned index) {
    Chip& chip = state_.chips[index];
    int input = pending(chip);
    if (input < 0) return -1;
    auto bit = std::uint8_t(1u << input);
    if (!(chip.elcr & bit)) chip.irr &= ~bit;
    if (!chip.auto_eoi)
        chip.isr |= bit;
    else if (chip.rotate_on_auto_eoi)
        chip.first = std::uint8_t((input + 1) & 7);
    return input;
}

int I8259Pair::acknowledge() {
    Chip const& master = state_.chips[0];
    Chip const& slave = state_.chips[1];
    int input = acknowledge_chip(0);
    int vector = master.vector_base + (input < 0 ? 7 : input);
    if (input == int(cascade)) {
        int slave_input = acknowledge_chip(1);
        vector = slave.vector_base + (slave_input < 0 ? 7 : slave_input);
        set_pin(state_.chips[0], cascade, false); // INTA takes the slave's INT low, so that its next request is an edge
    }
    update();
    return vector;
}

void I8259Pair::write_icw1(Chip& chip, std::uint8_t value) {
    // Edge detection restarts: a line that is high must fall and rise again. Level inputs keep requesting.
    std::uint8_t level_requests = chip.lines & chip.elcr;
    chip = Chip{.irr = level_requests, .lines = chip.lines, .elcr = chip.elcr, .vector_base = chip.vector_base};
    chip.expected_icw = 2;
    chip.icw4_needed = value & icw1_icw4_needed;
    chip.single = value & icw1_single;
}

void I8259Pair::write_ocw2(Chip& chip, std::uint8_t value) {
    bool const rotate = value & 0x80, specific = value & 0x40, eoi = value & 0x20;
    unsigned level = value & 7;
    if (!eoi) {
        if (specific && rotate) chip.first = std::uint8_t((level + 1) & 7); // set priority
        if (!specific) chip.rotate_on_auto_eoi = rotate;
        return;
    }
    if (!specific) {
        // Bits masked while in special mask mode are out of a non-specific EOI's reach.
        std::uint8_t eligible = chip.special_mask ? chip.isr & ~chip.imr : chip.isr;
        unsigned at = priority(eligible, chip.first);
        if (at == 8) return;
        level = (at + chip.first) & 7;
    }
    chip.isr &= ~(1u << level);
    if (rotate) chip.first = std::uint8_t((level + 1) & 7);
}

void I8259Pair::write_ocw3(Chip& chip, std::uint8_t value) {
    if (value & ocw3_poll) chip.poll = true;
    if (value & ocw3_read_register) chip.read_isr = value & ocw3_read_isr;
    if (value & ocw3_enable_special_mask) chip.special_mask = value & ocw3_special_mask;
}

void I8259Pair::write_data(Chip& chip, std::uint8_t value) {
    switch (chip.expected_icw) {
    case 2:
        chip.vector_base = value & 0xf8;
        chip.expected_icw = !chip.single ? 3 : chip.icw4_needed ? 4 : 0;
        break;
    case 3: // the cascade wiring is the board's; what the guest says of it changes nothing
        chip.expected_icw = chip.icw4_needed ? 4 : 0;
        break;
    case 4:
        chip.special_fully_nested = value & icw4_special_fully_nested;
        chip.auto_eoi = value & icw4_auto_eoi;
        chip.expected_icw = 0;
        break;
    default: chip.imr = value; break; // OCW1
    }
}

std::uint8_t I8259Pair::read_chip(unsigned index, bool data) {
    Chip& chip = state_.chips[index];
    if (chip.poll) { // the read after a poll command is an acknowledge cycle
        chip.poll = false;
        int input = acknowledge_chip(index);
        if (index == 1) set_pin(state_.chips[0], cascade, false);
        update();
        return input < 0 ? 0 : std::uint8_t(0x80 | input);
    }
    if (data) return chip.imr;
    return chip.read_isr ? chip.isr : chip.irr;
}

std::uint64_t I8259Pair::ChipPorts::read(std::uint64_t offset, unsigned) {
    return offset > 1 ? 0xff : pair.read_chip(index, offset == 1);
}

void I8259Pair::ChipPorts::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    Chip& chip = pair.state_.chips[index];
    auto byte = std::uint8_t(value);
    if (offset > 1) return;
    if (offset == 1)
        pair.write_data(chip, byte);
    else if (byte & icw1_select)
        pair.write_icw1(chip, byte);
    else if (byte & ocw3_select)
        pair.write_ocw3(chip, byte);
    else
        pair.write_ocw2(chip, byte);
    pair.update();
}

std::uint64_t I8259Pair::ElcrPorts::read(std::uint64_t offset, unsigned) {
    return offset > 1 ? 0xff : pair.state_.chips[offset].elcr;
}

void I8259Pair::ElcrPorts::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    if (offset > 1) return;
    Chip& chip = pair.state_.chips[offset];
    std::uint8_t old = chip.elcr;
    chip.elcr = std::uint8_t(value) & elcr_writable[offset];
    auto to_level = std::uint8_t(chip.elcr & ~old);
    chip.irr = std::uint8_t((chip.irr & ~to_level) | (chip.lines & to_level));
    pair.update();
}

} // namespace vmm::dev
