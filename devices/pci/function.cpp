#include "devices/pci/function.h"

#include "devices/pci/bus.h"
#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>

namespace vmm::dev {

namespace {
enum : std::uint32_t { bar_io_space = 1, bar_64bit = 4, bar_prefetch = 8, rom_enable = 1 };

void store(std::array<std::uint8_t, PciFunction::config_size>& to, unsigned offset, unsigned size,
           std::uint32_t value) {
    VMM_ASSERT(offset + size <= to.size());
    for (unsigned i = 0; i < size; ++i) to[offset + i] = std::uint8_t(value >> (8 * i));
}

bool is_64bit(PciBarKind kind) { return kind == PciBarKind::memory64 || kind == PciBarKind::memory64_prefetchable; }

std::uint32_t bar_flags(PciBarKind kind) {
    switch (kind) {
    case PciBarKind::io: return bar_io_space;
    case PciBarKind::memory32: return 0;
    case PciBarKind::memory64: return bar_64bit;
    case PciBarKind::memory32_prefetchable: return bar_prefetch;
    case PciBarKind::memory64_prefetchable: return bar_64bit | bar_prefetch;
    }
    VMM_UNREACHABLE();
}
} // namespace

PciFunction::PciFunction(PciIdentity const& id) {
    preset(pci_reg::vendor_id, 2, id.vendor);
    preset(pci_reg::device_id, 2, id.device);
    preset(pci_reg::revision_id, 1, id.revision);
    preset(pci_reg::class_code, 1, id.class_code & 0xff);
    preset(pci_reg::class_code + 1, 2, id.class_code >> 8);
    preset(pci_reg::subsystem_vendor_id, 2, id.subsystem_vendor);
    preset(pci_reg::subsystem_id, 2, id.subsystem);
    preset(pci_reg::interrupt_pin, 1, id.interrupt_pin);
    // Command: I/O, memory, bus master, parity, SERR#, interrupt disable.
    allow(pci_reg::command, 2, 0x0547);
    allow_clear(pci_reg::status, 2, 0xf900);
    allow(pci_reg::cache_line_size, 1, 0xff);
    allow(pci_reg::latency_timer, 1, 0xff);
    allow(pci_reg::interrupt_line, 1, 0xff);
}

PciFunction::~PciFunction() {
    if (!bus_) return;
    unsigned devfn = bus_->devfn_of(*this);
    bus_->detach({std::uint8_t(devfn / 8), std::uint8_t(devfn % 8)});
}

void PciFunction::add_bar(unsigned index, PciBar bar) {
    VMM_ASSERT(!bus_ && index < bar_count && !bars_[index]);
    VMM_ASSERT(is_power_of_two(bar.size) && bar.size >= (bar.kind == PciBarKind::io ? 4u : 16u));
    VMM_ASSERT(is_64bit(bar.kind) ? index + 1 < bar_count : bar.size <= 0x80000000u);
    for (PciBarWindow const& window : bar.windows)
        VMM_ASSERT(window.size && window.offset <= bar.size && window.size <= bar.size - window.offset);
    unsigned reg = bar_register(index);
    std::uint64_t mask = ~(bar.size - 1);
    preset(reg, 4, bar_flags(bar.kind));
    allow(reg, 4, std::uint32_t(mask));
    if (is_64bit(bar.kind)) allow(reg + 4, 4, std::uint32_t(mask >> 32));
    bars_[index] = std::move(bar);
}

void PciFunction::add_rom(RamBlock& rom, std::string name) {
    VMM_ASSERT(!bus_ && !bars_[rom_bar]);
    std::uint64_t size = 2048; // the smallest an expansion ROM register can ask for
    while (size < rom.size()) size *= 2;
    allow(pci_reg::expansion_rom, 4, std::uint32_t(~(size - 1)) | rom_enable);
    bars_[rom_bar] = PciBar{
        .kind = PciBarKind::memory32,
        .size = size,
        .name = std::move(name),
        .windows = {
            {.offset = 0, .size = std::min(size, rom.size()), .backing = Backing::of_ram(rom), .use = MapFor::reads}}};
}

unsigned PciFunction::add_capability(std::uint8_t id, unsigned size) {
    VMM_ASSERT(!bus_ && size >= 2 && next_capability_ + size <= config_size);
    unsigned at = next_capability_;
    next_capability_ = unsigned(align_up<std::uint64_t>(at + size, 4));
    preset(at, 1, id);
    preset(at + 1, 1, initial_[pci_reg::capabilities]);
    preset(pci_reg::capabilities, 1, at);
    preset(pci_reg::status, 1, initial_[pci_reg::status] | pci_status::capabilities);
    return at;
}

void PciFunction::preset(unsigned offset, unsigned size, std::uint32_t value) {
    store(initial_, offset, size, value);
    store(state_.config, offset, size, value);
}
void PciFunction::allow(unsigned offset, unsigned size, std::uint32_t mask) { store(writable_, offset, size, mask); }
void PciFunction::allow_clear(unsigned offset, unsigned size, std::uint32_t mask) {
    store(clearable_, offset, size, mask);
}

std::uint32_t PciFunction::read(unsigned offset, unsigned size) const {
    VMM_ASSERT(offset + size <= config_size);
    std::uint32_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= std::uint32_t(state_.config[offset + i]) << (8 * i);
    return value;
}

void PciFunction::write(unsigned offset, unsigned size, std::uint32_t value) {
    VMM_ASSERT(offset + size <= config_size);
    for (unsigned i = 0; i < size; ++i) {
        unsigned at = offset + i;
        auto byte = std::uint8_t(value >> (8 * i));
        std::uint8_t old = state_.config[at];
        auto kept = std::uint8_t((old & ~writable_[at]) | (byte & writable_[at]));
        state_.config[at] = std::uint8_t(kept & ~(byte & clearable_[at]));
    }
    auto touches = [&](unsigned first, unsigned last) { return offset <= last && offset + size > first; };
    if (touches(pci_reg::command, pci_reg::command + 1) || touches(0x10, 0x27) || touches(0x30, 0x33))
        update_mappings();
    update_intx();
    if (on_write_) on_write_(offset, size);
}

void PciFunction::set(unsigned offset, unsigned size, std::uint32_t value) {
    store(state_.config, offset, size, value);
}

void PciFunction::set_intx(bool level) {
    state_.intx = level;
    update_intx();
}

bool PciFunction::intx_asserted() const {
    return state_.intx && !(read(pci_reg::command, 2) & pci_command::intx_disable);
}

void PciFunction::update_intx() {
    std::uint8_t& status = state_.config[pci_reg::status];
    status = std::uint8_t(state_.intx ? status | pci_status::interrupt : status & ~pci_status::interrupt);
    if (!bus_ || intx_asserted() == asserted_) return;
    asserted_ = intx_asserted();
    bus_->intx_changed(bus_->devfn_of(*this), asserted_);
}

std::uint64_t PciFunction::bar_base(unsigned index) const {
    VMM_ASSERT(index <= rom_bar);
    if (!bars_[index]) return 0;
    unsigned reg = bar_register(index);
    std::uint64_t value = read(reg, 4);
    if (is_64bit(bars_[index]->kind)) value |= std::uint64_t(read(reg + 4, 4)) << 32;
    return value & ~(bars_[index]->size - 1);
}

std::optional<AddressRange> PciFunction::bar_range(unsigned index) const {
    if (!bars_[index] || !bus_) return std::nullopt;
    PciBar const& bar = *bars_[index];
    std::uint16_t command = std::uint16_t(read(pci_reg::command, 2));
    bool io = bar.kind == PciBarKind::io;
    if (!(command & (io ? pci_command::io : pci_command::memory))) return std::nullopt;
    if (index == rom_bar && !(read(pci_reg::expansion_rom, 4) & rom_enable)) return std::nullopt;
    std::uint64_t base = bar_base(index), last = base + (bar.size - 1);
    // Zero is "not assigned"; a register of all ones is being sized.
    if (base == 0 || last < base) return std::nullopt;
    if (io && last > 0xffff) return std::nullopt;
    if (!io && !is_64bit(bar.kind) && last >= 0xffffffff) return std::nullopt;
    if (!io && last > bus_->needs_.memory_limit) return std::nullopt;
    return AddressRange{base, last};
}

void PciFunction::update_mappings() {
    if (!bus_) return;
    for (unsigned i = 0; i <= rom_bar; ++i) {
        std::optional<AddressRange> range = bar_range(i);
        std::optional<Mapped>& mapped = mapped_[i];
        // Only a change is worth a new view of the address space.
        if (range ? mapped && mapped->first == range->first : !mapped) continue;
        unmap(i);
        if (range) map(i, *range);
    }
}

void PciFunction::map(unsigned index, AddressRange range) {
    PciBar const& bar = *bars_[index];
    AddressSpace& space = bar.kind == PciBarKind::io ? bus_->needs_.io : bus_->needs_.memory;
    AddressSpace::Batch batch(space);
    Mapped& mapped = mapped_[index].emplace(Mapped{&space, {}, range.first});
    for (PciBarWindow const& window : bar.windows)
        mapped.ids.push_back(space.map({.name = bar.name,
                                        .range = AddressRange::of(range.first + window.offset, window.size),
                                        .backing = window.backing,
                                        .priority = pci_priority::bar,
                                        .use = window.use}));
}

void PciFunction::unmap(unsigned index) {
    if (!mapped_[index]) return;
    AddressSpace::Batch batch(*mapped_[index]->space);
    for (MappingId id : mapped_[index]->ids) mapped_[index]->space->unmap(id);
    mapped_[index].reset();
}

void PciFunction::reset() {
    State fresh{.config = initial_, .intx = false};
    restore(fresh);
}

Result<void> PciFunction::check(State const& state) const {
    for (unsigned i = 0; i < config_size; ++i) {
        // Status, and what the device sets itself (above the header), may differ; the identity may not.
        bool identity = i < pci_reg::command || (i >= pci_reg::revision_id && i < pci_reg::cache_line_size) ||
                        (i >= pci_reg::header_type && i < pci_reg::interrupt_line);
        if (identity && ((state.config[i] ^ state_.config[i]) & ~writable_[i]))
            return error(
                "the saved PCI function is another device (byte {:#x} of its configuration is {:#x}, not {:#x})", i,
                state.config[i], state_.config[i]);
    }
    return {};
}

void PciFunction::restore(State const& state) {
    state_ = state;
    update_mappings();
    update_intx();
    if (on_write_) on_write_(0, config_size);
}

} // namespace vmm::dev
