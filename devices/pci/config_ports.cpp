#include "devices/pci/config_ports.h"

namespace vmm::dev {

namespace {
constexpr std::uint32_t confadd_enable = 0x80000000, confadd_bits = 0x80fffffc;
enum : unsigned { offset_confadd = 0, offset_reset_control = 1, offset_confdata = 4 };
constexpr std::uint64_t no_answer(unsigned size) { return ~std::uint64_t(0) >> (64 - 8 * size); }
} // namespace

template <class V> void fields(V& v, PciConfigPorts::State& s) { v.field("address", s.address); }

// Whether CONFDATA at `offset` reaches a register of bus 0.
bool PciConfigPorts::selects(std::uint64_t offset, unsigned size) const {
    return (state_.address & confadd_enable) && (state_.address >> 16 & 0xff) == 0 && (offset & 3) + size <= 4;
}

std::uint64_t PciConfigPorts::read(std::uint64_t offset, unsigned size) {
    if (offset >= offset_confdata) {
        if (!selects(offset, size)) return no_answer(size);
        return needs_.bus.config_read(state_.address >> 8 & 0xff, (state_.address & 0xfc) | (offset & 3), size);
    }
    if (offset == offset_confadd && size == 4) return state_.address;
    if (offset == offset_reset_control && size == 1) return needs_.reset_control.read(0, 1);
    return no_answer(size);
}

void PciConfigPorts::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset >= offset_confdata) {
        if (!selects(offset, size)) return;
        needs_.bus.config_write(state_.address >> 8 & 0xff, (state_.address & 0xfc) | (offset & 3), size,
                                std::uint32_t(value));
        return;
    }
    if (offset == offset_confadd && size == 4) state_.address = std::uint32_t(value) & confadd_bits;
    if (offset == offset_reset_control && size == 1) needs_.reset_control.write(0, 1, value);
}

void PciConfigPorts::save(StateWriter& to) const { save_state(to, state_); }

Result<void> PciConfigPorts::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.address & ~confadd_bits) return error("the PCI configuration address holds bits that do not exist");
    state_ = loaded;
    return {};
}

} // namespace vmm::dev
