// PciFunction: the configuration space of one PCI function: identity, write masks, BARs and capabilities (PCI Local Bus
// specification 3.0, chapter 6).
#pragma once
#include "devices/core/roles.h"
#include "vmm/memory/address_space.h"

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

namespace vmm::dev {

class PciBus;

// Standard header registers used outside this folder.
namespace pci_reg {
enum : unsigned {
    vendor_id = 0x00,
    device_id = 0x02,
    command = 0x04,
    status = 0x06,
    revision_id = 0x08,
    class_code = 0x09,
    cache_line_size = 0x0c,
    latency_timer = 0x0d,
    header_type = 0x0e,
    bar0 = 0x10,
    subsystem_vendor_id = 0x2c,
    subsystem_id = 0x2e,
    expansion_rom = 0x30,
    capabilities = 0x34,
    interrupt_line = 0x3c,
    interrupt_pin = 0x3d,
};
}
namespace pci_command {
enum : std::uint16_t { io = 1 << 0, memory = 1 << 1, bus_master = 1 << 2, intx_disable = 1 << 10 };
}
namespace pci_status {
enum : std::uint16_t { interrupt = 1 << 3, capabilities = 1 << 4 };
}

struct PciIdentity {
    std::uint16_t vendor = 0, device = 0;
    std::uint32_t class_code = 0; // 24 bits: class, subclass, programming interface
    std::uint8_t revision = 0;
    // The pair by which guests know an emulated PC's devices; drivers for real subsystems leave it alone.
    std::uint16_t subsystem_vendor = 0x1af4, subsystem = 0x1100;
    std::uint8_t interrupt_pin = 0; // 1 to 4 for INTA# to INTD#, 0 for none
};

enum class PciBarKind : std::uint8_t { io, memory32, memory64, memory32_prefetchable, memory64_prefetchable };

// A BAR answers in one or more windows, each RAM or registers, at its own offset; what lies between does not decode.
struct PciBarWindow {
    std::uint64_t offset = 0;
    std::uint64_t size = 0;
    Backing backing{};
    MapFor use = MapFor::both;
};
struct PciBar {
    PciBarKind kind = PciBarKind::memory32;
    std::uint64_t size = 0; // a power of two; at least 4 for I/O, 16 for memory
    std::string name{};     // for `info mtree`
    std::vector<PciBarWindow> windows{};
};

// Owned by the device whose function it is (held by value); reached by the bus it is attached to. Device lock.
class PciFunction final {
public:
    static constexpr unsigned config_size = 256;
    static constexpr unsigned bar_count = 6, rom_bar = 6; // index of the expansion ROM in bar_address

    // What of a function is architectural state; a device saves it as part of its own.
    struct State {
        std::array<std::uint8_t, config_size> config{};
        bool intx = false; // the device asks for its interrupt pin
    };

    explicit PciFunction(PciIdentity const& identity);
    ~PciFunction();
    PciFunction(PciFunction const&) = delete;
    PciFunction& operator=(PciFunction const&) = delete;

    // --- building, before the function is attached ---
    // BAR `index`; a 64-bit one takes index + 1 too.
    void add_bar(unsigned index, PciBar bar);
    void add_rom(RamBlock& rom, std::string name);
    // Reserves `size` bytes (a multiple of 4) for a capability at the head of the list and returns its offset. The body
    // starts zero and read-only: set values with preset and masks with allow.
    unsigned add_capability(std::uint8_t id, unsigned size);
    // The reset value of a register of 1, 2 or 4 bytes.
    void preset(unsigned offset, unsigned size, std::uint32_t value);
    // Which bits a guest may write, beside those of the standard header.
    void allow(unsigned offset, unsigned size, std::uint32_t mask);
    // Which bits a guest clears by writing one.
    void allow_clear(unsigned offset, unsigned size, std::uint32_t mask);
    // Called after a guest's write to [offset, offset + size), and after reset and load (offset 0, size 256).
    void on_write(std::function<void(unsigned offset, unsigned size)> callback) { on_write_ = std::move(callback); }

    // --- the guest's side, called by the bus ---
    // offset + size is at most config_size; size is 1, 2 or 4, aligned.
    std::uint32_t read(unsigned offset, unsigned size) const;
    void write(unsigned offset, unsigned size, std::uint32_t value);

    // --- the device's side ---
    // Sets bits without regard to masks (status registers).
    void set(unsigned offset, unsigned size, std::uint32_t value);
    // Asks for (or stops asking for) the interrupt pin.
    void set_intx(bool level);
    bool bus_master() const { return read(pci_reg::command, 2) & pci_command::bus_master; }
    // Where BAR `index` (or rom_bar) decodes now; nothing while it is disabled, unassigned or impossible.
    std::optional<AddressRange> bar_range(unsigned index) const;
    bool bar_is_io(unsigned index) const { return bars_[index] && bars_[index]->kind == PciBarKind::io; }
    std::uint64_t bar_size(unsigned index) const { return bars_[index] ? bars_[index]->size : 0; }
    // The address the guest wrote, decoding or not.
    std::uint64_t bar_base(unsigned index) const;

    void reset();
    State const& state() const { return state_; }
    // Whether `state` belongs to a function like this one: read-only bits, among them the identity, must agree.
    Result<void> check(State const& state) const;
    // Takes over a checked state: maps BARs and raises interrupts anew.
    void restore(State const& state);

private:
    friend class PciBus;
    unsigned bar_register(unsigned index) const { return index == rom_bar ? pci_reg::expansion_rom : 0x10 + 4 * index; }
    bool intx_asserted() const;
    void update_mappings();
    void update_intx();
    void map(unsigned index, AddressRange range);
    void unmap(unsigned index);

    State state_;
    std::array<std::uint8_t, config_size> initial_{}, writable_{}, clearable_{};
    std::array<std::optional<PciBar>, bar_count + 1> bars_;
    struct Mapped {
        AddressSpace* space;
        std::vector<MappingId> ids;
        GuestPhys first;
    };
    std::array<std::optional<Mapped>, bar_count + 1> mapped_;
    unsigned next_capability_ = 0x40;
    std::function<void(unsigned, unsigned)> on_write_;
    PciBus* bus_ = nullptr;
    bool asserted_ = false; // what the bus was last told
};

template <class V> void fields(V& v, PciFunction::State& s) {
    v.field("config", s.config);
    v.field("intx", s.intx);
}

} // namespace vmm::dev
