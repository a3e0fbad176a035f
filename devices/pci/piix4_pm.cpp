#include "devices/pci/piix4_pm.h"

#include "devices/pci/bus.h"

namespace vmm::dev {

namespace {
// 82371AB data sheet, section 7.1.
enum : unsigned {
    reg_pmbase = 0x40,
    reg_cnta = 0x44,
    reg_devactb = 0x58,
    reg_pmregmisc = 0x80,
    reg_smbba = 0x90,
    reg_smbhstcfg = 0xd2
};
constexpr std::uint8_t sci_irq = 9; // hard-wired
constexpr std::uint32_t devactb_apmc_en = 1u << 25;
constexpr std::uint32_t pmbase_mask = 0xffc0, smbba_mask = 0xfff0;
enum : std::uint8_t { pmregmisc_pmiose = 1, smbhstcfg_enable = 1 };
} // namespace

template <class V> void fields(V& v, Piix4Pm::State& s) {
    v.field("pci", s.pci);
    v.field("smbus", s.smbus);
}

Piix4Pm::Piix4Pm(Needs needs)
    : needs_(needs),
      function_({.vendor = 0x8086, .device = 0x7113, .class_code = 0x068000, .revision = 0x03, .interrupt_pin = 1}) {
    PciFunction& f = function_;
    f.allow(pci_reg::command, 2, 0x0001);
    f.preset(pci_reg::status, 2, 0x0280);
    f.preset(reg_pmbase, 4, 1); // bit 0: an I/O address
    f.allow(reg_pmbase, 4, pmbase_mask);
    for (unsigned reg = reg_cnta; reg < reg_pmregmisc; reg += 4) f.allow(reg, 4, 0xffffffff);
    f.allow(reg_pmregmisc, 1, pmregmisc_pmiose);
    f.preset(reg_smbba, 4, 1);
    f.allow(reg_smbba, 4, smbba_mask);
    f.allow(reg_smbhstcfg, 4, 0x00ffff0f); // and the slave command and shadow registers after it
    f.on_write([this](unsigned offset, unsigned) {
        if (offset == 0 || offset >= reg_pmbase) update();
    });
}

Piix4Pm::~Piix4Pm() {
    place(pm_block_, 0, {});
    place(smbus_block_, 0, {});
}

// Moves `block` to `base`, 0 for nowhere.
void Piix4Pm::place(Block& block, std::uint64_t base, Mapping mapping) {
    if (block.base == base) return;
    if (block.id) needs_.io.unmap(*block.id);
    block = {.id = std::nullopt, .base = base};
    if (base) block.id = needs_.io.map(std::move(mapping));
}

void Piix4Pm::update() {
    bool pm_on = function_.read(reg_pmregmisc, 1) & pmregmisc_pmiose;
    std::uint64_t pm = pm_on ? function_.read(reg_pmbase, 4) & pmbase_mask : 0;
    place(pm_block_, pm,
          {.name = "acpi-pm",
           .range = AddressRange::of(pm, AcpiPm::pm_size),
           .backing = Backing::of_io(needs_.acpi.pm(), AcpiPm::pm_rules)});
    bool smbus_on = function_.read(reg_smbhstcfg, 1) & smbhstcfg_enable;
    std::uint64_t smbus = smbus_on ? function_.read(reg_smbba, 4) & smbba_mask : 0;
    place(smbus_block_, smbus,
          {.name = "smbus",
           .range = AddressRange::of(smbus, Piix4Smbus::region_size),
           .backing = Backing::of_io(smbus_, Piix4Smbus::access_rules)});
}

void Piix4Pm::assign(std::uint16_t pm_base, std::uint16_t smbus_base) {
    function_.write(reg_pmbase, 4, pm_base);
    function_.write(reg_pmregmisc, 1, pmregmisc_pmiose);
    function_.write(reg_smbba, 4, smbus_base);
    function_.write(reg_smbhstcfg, 1, smbhstcfg_enable);
    function_.write(pci_reg::command, 2, pci_command::io);
    function_.write(pci_reg::interrupt_line, 1, sci_irq);
}

bool Piix4Pm::apm_raises_smi() const { return function_.read(reg_devactb, 4) & devactb_apmc_en; }

void Piix4Pm::reset() {
    smbus_.restore({});
    function_.reset();
}

void Piix4Pm::save(StateWriter& to) const { save_state(to, State{function_.state(), smbus_.state()}); }

Result<void> Piix4Pm::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    TRY(function_.check(loaded.pci));
    TRY(Piix4Smbus::check(loaded.smbus));
    smbus_.restore(loaded.smbus);
    function_.restore(loaded.pci);
    return {};
}

} // namespace vmm::dev
