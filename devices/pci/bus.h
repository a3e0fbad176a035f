// PciBus: which functions are on a PCI bus, where their BARs decode, and which interrupt wires they pull.
#pragma once
#include "devices/pci/function.h"
#include "vmm/base/log.h"

#include <array>
#include <cstdint>
#include <string>

namespace vmm::dev {

struct PciAddress {
    std::uint8_t device = 0;   // below 32
    std::uint8_t function = 0; // below 8
    unsigned devfn() const { return device * 8u + function; }
};

// The four interrupt wires of a bus behind its routing; implemented by the bridge that connects them.
class PciIntxRouter {
public:
    virtual ~PciIntxRouter() = default;
    // Wire 0 to 3 (A to D).
    virtual void set_intx(unsigned wire, bool level) = 0;
};

// Priorities of mappings in a PC's memory space, lowest first. RAM and the fixed devices hide BARs that a guest puts
// upon them, as the host bridge decodes them first.
namespace pci_priority {
inline constexpr int bar = -1;
inline constexpr int ram = 0;
inline constexpr int hole = 1;       // the host bridge: what sends parts of RAM's range to PCI
inline constexpr int legacy = 2;     // devices in the hole: VGA's window at 0xa0000
inline constexpr int smram_open = 3; // RAM shown over them
} // namespace pci_priority

// Device lock. Functions and the router outlive the bus's use of them: the machine destroys the bus last or detaches.
class PciBus {
public:
    static constexpr unsigned slots = 256;
    struct Needs {
        AddressSpace& memory;
        AddressSpace& io;
        PciIntxRouter& intx;
        // Highest address a memory BAR may decode at.
        GuestPhys memory_limit = (GuestPhys(1) << 40) - 1;
    };
    explicit PciBus(Needs needs) : needs_(needs) {}
    PciBus(PciBus const&) = delete;
    PciBus& operator=(PciBus const&) = delete;

    // Fails when the slot is taken. Sets function 0's multifunction bit when the device has others.
    Result<void> attach(PciAddress where, PciFunction& function);
    void detach(PciAddress where);
    PciFunction* at(PciAddress where) const { return functions_[where.devfn()]; }
    // The lowest device number from `first` on with nothing attached, or an error naming the bus as full.
    Result<std::uint8_t> free_device(std::uint8_t first = 0) const;

    // Configuration cycles: no function reads as ones. size 1, 2 or 4; aligned.
    std::uint32_t config_read(unsigned devfn, unsigned offset, unsigned size) const;
    void config_write(unsigned devfn, unsigned offset, unsigned size, std::uint32_t value);

    // Which of the four wires pin `pin` (1 to 4) of `device` pulls: boards rotate them by slot.
    static unsigned wire_of(unsigned device, unsigned pin) { return (pin - 1 + device - 1) & 3; }

    // `info pci`: a paragraph for every function.
    std::string describe() const;

private:
    friend class PciFunction;
    void intx_changed(unsigned devfn, bool asserted);
    unsigned devfn_of(PciFunction const& function) const;

    Needs needs_;
    std::array<PciFunction*, slots> functions_{};
    std::array<std::array<bool, 4>, slots> pulls_{};
};

} // namespace vmm::dev
