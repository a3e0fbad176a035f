#include "devices/pci/bus.h"

#include <fmt/format.h>

#include <algorithm>

namespace vmm::dev {

namespace {
constexpr std::uint8_t multifunction = 0x80;

struct ClassName {
    std::uint16_t code;
    char const* name;
};
// Class and subclass (PCI Code and ID Assignment specification) of what a PC has.
constexpr ClassName class_names[] = {
    {0x0100, "SCSI controller"},
    {0x0101, "IDE controller"},
    {0x0106, "SATA controller"},
    {0x0108, "NVMe controller"},
    {0x0180, "Storage controller"},
    {0x0200, "Ethernet controller"},
    {0x0280, "Network controller"},
    {0x0300, "VGA controller"},
    {0x0380, "Display controller"},
    {0x0401, "Audio controller"},
    {0x0403, "Audio controller"},
    {0x0500, "RAM controller"},
    {0x0600, "Host bridge"},
    {0x0601, "ISA bridge"},
    {0x0604, "PCI bridge"},
    {0x0680, "Bridge"},
    {0x0700, "Serial port"},
    {0x0780, "Communication controller"},
    {0x0880, "System peripheral"},
    {0x0900, "Keyboard"},
    {0x0980, "Input controller"},
    {0x0c03, "USB controller"},
    {0x0c05, "SMBus"},
};

std::string class_name(unsigned code) {
    auto it = std::ranges::find(class_names, code, &ClassName::code);
    return it == std::end(class_names) ? fmt::format("Class {:04x}", code) : it->name;
}

void describe_bars(PciFunction const& function, fmt::memory_buffer& out) {
    for (unsigned i = 0; i <= PciFunction::rom_bar; ++i) {
        std::uint64_t size = function.bar_size(i);
        if (!size) continue;
        // A BAR that does not decode is shown at all ones, as users of `info pci` know it.
        std::optional<AddressRange> range = function.bar_range(i);
        std::uint64_t base = range ? range->first : UINT64_MAX, last = base + (size - 1);
        if (function.bar_is_io(i)) {
            fmt::format_to(fmt::appender(out), "      BAR{}: I/O at {:#06x} [{:#06x}].\n", i, base, last);
            continue;
        }
        std::uint32_t flags = i == PciFunction::rom_bar ? 0 : function.read(pci_reg::bar0 + 4 * i, 4);
        fmt::format_to(fmt::appender(out), "      BAR{}: {} bit{} memory at {:#010x} [{:#010x}].\n", i,
                       flags & 4 ? 64 : 32, flags & 8 ? " prefetchable" : "", base, last);
    }
}
} // namespace

Result<void> PciBus::attach(PciAddress where, PciFunction& function) {
    VMM_ASSERT(where.device < 32 && where.function < 8 && !function.bus_);
    if (functions_[where.devfn()])
        return error("PCI slot {:02x}.{} is taken by device {:04x}:{:04x}", where.device, where.function,
                     at(where)->read(pci_reg::vendor_id, 2), at(where)->read(pci_reg::device_id, 2));
    functions_[where.devfn()] = &function;
    function.bus_ = this;
    bool others = where.function != 0;
    for (std::uint8_t f = 1; f < 8; ++f) others |= at({where.device, f}) != nullptr;
    PciFunction* first = at({where.device, 0});
    if (others && first) first->preset(pci_reg::header_type, 1, first->read(pci_reg::header_type, 1) | multifunction);
    function.update_mappings();
    function.update_intx();
    return {};
}

void PciBus::detach(PciAddress where) {
    PciFunction* function = at(where);
    VMM_ASSERT(function);
    // The pin is let go before the wire's levels are worked out anew.
    if (function->asserted_) intx_changed(where.devfn(), false);
    function->asserted_ = false;
    for (unsigned i = 0; i <= PciFunction::rom_bar; ++i) function->unmap(i);
    function->bus_ = nullptr;
    functions_[where.devfn()] = nullptr;
}

Result<std::uint8_t> PciBus::free_device(std::uint8_t first) const {
    for (std::uint8_t device = first; device < 32; ++device) {
        bool used = false;
        for (std::uint8_t f = 0; f < 8; ++f) used |= at({device, f}) != nullptr;
        if (!used) return device;
    }
    return error("the PCI bus has no free slot");
}

std::uint32_t PciBus::config_read(unsigned devfn, unsigned offset, unsigned size) const {
    PciFunction const* function = devfn < slots ? functions_[devfn] : nullptr;
    return function ? function->read(offset, size) : 0xffffffffu >> (32 - 8 * size);
}

void PciBus::config_write(unsigned devfn, unsigned offset, unsigned size, std::uint32_t value) {
    if (PciFunction* function = devfn < slots ? functions_[devfn] : nullptr) function->write(offset, size, value);
}

unsigned PciBus::devfn_of(PciFunction const& function) const {
    auto it = std::ranges::find(functions_, &function);
    VMM_ASSERT(it != functions_.end());
    return unsigned(it - functions_.begin());
}

void PciBus::intx_changed(unsigned devfn, bool asserted) {
    unsigned pin = functions_[devfn]->read(pci_reg::interrupt_pin, 1);
    if (pin < 1 || pin > 4) return;
    unsigned wire = wire_of(devfn / 8, pin);
    pulls_[devfn][wire] = asserted;
    // The wires are shared: low only when nobody pulls.
    bool level = std::ranges::any_of(pulls_, [&](auto const& pulls) { return pulls[wire]; });
    needs_.intx.set_intx(wire, level);
}

std::string PciBus::describe() const {
    fmt::memory_buffer out;
    for (unsigned devfn = 0; devfn < slots; ++devfn) {
        PciFunction const* function = functions_[devfn];
        if (!function) continue;
        fmt::format_to(fmt::appender(out), "  Bus  0, device {:3}, function {}:\n", devfn / 8, devfn % 8);
        fmt::format_to(fmt::appender(out), "    {}: PCI device {:04x}:{:04x}\n",
                       class_name(function->read(pci_reg::class_code + 1, 2)), function->read(pci_reg::vendor_id, 2),
                       function->read(pci_reg::device_id, 2));
        if (function->read(pci_reg::subsystem_vendor_id, 2))
            fmt::format_to(fmt::appender(out), "      PCI subsystem {:04x}:{:04x}\n",
                           function->read(pci_reg::subsystem_vendor_id, 2), function->read(pci_reg::subsystem_id, 2));
        if (unsigned pin = function->read(pci_reg::interrupt_pin, 1))
            fmt::format_to(fmt::appender(out), "      IRQ {}, pin {}\n", function->read(pci_reg::interrupt_line, 1),
                           char('A' + pin - 1));
        describe_bars(*function, out);
        fmt::format_to(fmt::appender(out), "      id \"\"\n");
    }
    return fmt::to_string(out);
}

} // namespace vmm::dev
