#include "devices/pci/piix3.h"

#include "vmm/base/assert.h"

namespace vmm::dev {

namespace {
// 82371SB data sheet, section 2.2.
enum : unsigned { reg_iort = 0x4c, reg_xbcs = 0x4e, reg_pirqrca = 0x60, reg_tom = 0x69, reg_mstat = 0x6a };
enum : unsigned { reg_mbirq0 = 0x70, reg_mbdma0 = 0x76, reg_pcsc = 0x78, reg_apicbase = 0x80, reg_dlc = 0x82 };
enum : unsigned { reg_smicntl = 0xa0, reg_smien = 0xa2, reg_see = 0xa4, reg_ftmr = 0xa8, reg_smireq = 0xaa };
enum : unsigned { reg_ctltmr = 0xac, reg_cthtmr = 0xae };
enum : std::uint8_t { pirq_disabled = 0x80, pirq_irq = 0x0f };
enum : std::uint8_t { rc_srst = 0x02, rc_rcpu = 0x04 };
constexpr std::uint16_t routable = 0xdef8; // 3-7, 9-12, 14, 15
} // namespace

template <class V> void fields(V& v, Piix3::State& s) {
    v.field("pci", s.pci);
    for (unsigned i = 0; i < 4; ++i) v.field("wire" + std::to_string(i), s.wires[i]);
    v.field("reset_control", s.reset_control);
}

Piix3::Piix3(Needs needs) : needs_(needs), function_({.vendor = 0x8086, .device = 0x7000, .class_code = 0x060100}) {
    VMM_ASSERT(needs_.reset);
    for (unsigned irq = 0; irq < isa_irqs; ++irq) VMM_ASSERT(!(routable >> irq & 1) || needs_.irqs[irq]);
    PciFunction& f = function_;
    f.preset(pci_reg::command, 2, 0x0007);
    f.allow(pci_reg::command, 2, 0x0108); // I/O, memory and bus master are hard-wired on; special cycles, SERR#
    f.preset(pci_reg::status, 2, 0x0200);
    f.preset(pci_reg::header_type, 1, 0x80);
    struct Register {
        unsigned offset, size;
        std::uint32_t value, mask;
    };
    constexpr Register registers[] = {
        {reg_iort, 1, 0x4d, 0xff},      {reg_xbcs, 2, 0x0003, 0x01ff},
        {reg_tom, 1, 0x02, 0xfe},       {reg_mstat, 2, 0x0000, 0x0083},
        {reg_mbirq0, 1, 0x80, 0xef},    {reg_mbirq0 + 1, 1, 0x80, 0xef},
        {reg_mbdma0, 1, 0x0c, 0x8f},    {reg_mbdma0 + 1, 1, 0x0c, 0x8f},
        {reg_pcsc, 2, 0x0002, 0xffff},  {reg_apicbase, 1, 0x00, 0x7f},
        {reg_dlc, 1, 0x00, 0x0f},       {reg_smicntl, 1, 0x08, 0x1f},
        {reg_smien, 2, 0x0000, 0x01ff}, {reg_see, 4, 0x00000000, 0xa000ffff},
        {reg_ftmr, 1, 0x0f, 0xff},      {reg_ctltmr, 1, 0x00, 0xff},
        {reg_cthtmr, 1, 0x00, 0xff},
    };
    for (Register const& r : registers) {
        f.preset(r.offset, r.size, r.value);
        f.allow(r.offset, r.size, r.mask);
    }
    for (unsigned wire = 0; wire < 4; ++wire) {
        f.preset(reg_pirqrca + wire, 1, pirq_disabled);
        f.allow(reg_pirqrca + wire, 1, pirq_disabled | pirq_irq);
    }
    f.on_write([this](unsigned offset, unsigned size) {
        if (offset < reg_pirqrca + 4 && offset + size > reg_pirqrca) update();
    });
}

void Piix3::set_intx(unsigned wire, bool level) {
    VMM_ASSERT(wire < 4);
    wires_[wire] = level;
    update();
}

void Piix3::route(std::array<std::uint8_t, 4> const& irqs) {
    for (unsigned wire = 0; wire < 4; ++wire) function_.write(reg_pirqrca + wire, 1, irqs[wire]);
}

void Piix3::update() {
    std::uint16_t wanted = 0;
    for (unsigned wire = 0; wire < 4; ++wire) {
        std::uint32_t control = function_.read(reg_pirqrca + wire, 1);
        if (wires_[wire] && !(control & pirq_disabled)) wanted |= std::uint16_t(1u << (control & pirq_irq));
    }
    wanted &= routable;
    std::uint16_t changed = wanted ^ driven_;
    driven_ = wanted;
    for (unsigned irq = 0; irq < isa_irqs; ++irq)
        if (changed >> irq & 1) needs_.irqs[irq]->set(wanted >> irq & 1);
}

std::uint64_t Piix3::ResetControl::read(std::uint64_t, unsigned) { return device.reset_register_; }

void Piix3::ResetControl::write(std::uint64_t, unsigned, std::uint64_t value) {
    // SRST chooses hard or soft; both reset the machine here. RCPU reads as zero again once the reset is done.
    device.reset_register_ = std::uint8_t(value & rc_srst);
    if (value & rc_rcpu) device.needs_.reset->pulse();
}

void Piix3::reset() {
    reset_register_ = 0;
    function_.reset(); // the wires belong to the devices that pull them
}

void Piix3::save(StateWriter& to) const { save_state(to, State{function_.state(), wires_, reset_register_}); }

Result<void> Piix3::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    TRY(function_.check(loaded.pci));
    if (loaded.reset_control & ~rc_srst) return error("the reset control register holds bits that do not exist");
    wires_ = loaded.wires;
    reset_register_ = loaded.reset_control;
    function_.restore(loaded.pci);
    return {};
}

} // namespace vmm::dev
