#include "devices/isa/i8237.h"

namespace vmm::dev {

namespace {
// Registers 0-7 are each channel's address and count; table 6 names the rest.
enum : unsigned { reg_status_command = 8, reg_request = 9, reg_mask_bit = 10, reg_mode = 11 };
enum : unsigned { reg_clear_flip_flop = 12, reg_temporary_master_clear = 13, reg_clear_mask = 14, reg_write_mask = 15 };
constexpr std::uint8_t select_bit = 4; // of the request and mask registers: set or clear
constexpr std::uint8_t channel_bits = 0x0f, status_terminal_counts = 0x0f;

void set_half(std::uint16_t& word, bool high, std::uint8_t value) {
    word = std::uint16_t(high ? (word & 0x00ff) | value << 8 : (word & 0xff00) | value);
}
std::uint8_t with_channel_bit(std::uint8_t bits, std::uint64_t value) {
    auto bit = std::uint8_t(1u << (value & 3));
    return std::uint8_t(value & select_bit ? bits | bit : bits & ~bit);
}
} // namespace

template <class V> void fields(V& v, I8237Pair::Channel& s) {
    v.field("base_address", s.base_address);
    v.field("base_count", s.base_count);
    v.field("current_address", s.current_address);
    v.field("current_count", s.current_count);
    v.field("mode", s.mode);
}
template <class V> void fields(V& v, I8237Pair::Controller& s) {
    v.field("channels", s.channels);
    v.field("command", s.command);
    v.field("status", s.status);
    v.field("request", s.request);
    v.field("mask", s.mask);
    v.field("high_byte", s.high_byte);
}
template <class V> void fields(V& v, I8237Pair::State& s) {
    v.field("controllers", s.controllers);
    v.field("pages", s.pages);
}

std::uint64_t I8237Pair::Registers::read(std::uint64_t offset, unsigned) {
    unsigned reg = unsigned(index ? offset / 2 : offset) & 15;
    Controller& c = controller();
    if (reg < reg_status_command) {
        Channel const& channel = c.channels[reg / 2];
        std::uint16_t word = reg & 1 ? channel.current_count : channel.current_address;
        bool high = c.high_byte;
        c.high_byte = !c.high_byte;
        return high ? word >> 8 : word & 0xff;
    }
    if (reg != reg_status_command) return 0; // the temporary register: there are no memory-to-memory transfers
    std::uint8_t status = c.status;
    c.status &= std::uint8_t(~status_terminal_counts);
    return status;
}

void I8237Pair::Registers::write(std::uint64_t offset, unsigned, std::uint64_t wide) {
    unsigned reg = unsigned(index ? offset / 2 : offset) & 15;
    auto value = std::uint8_t(wide);
    Controller& c = controller();
    if (reg < reg_status_command) {
        Channel& channel = c.channels[reg / 2];
        set_half(reg & 1 ? channel.base_count : channel.base_address, c.high_byte, value);
        set_half(reg & 1 ? channel.current_count : channel.current_address, c.high_byte, value);
        c.high_byte = !c.high_byte;
        return;
    }
    switch (reg) {
    case reg_status_command: c.command = value; break;
    case reg_request: c.request = with_channel_bit(c.request, value); break;
    case reg_mask_bit: c.mask = with_channel_bit(c.mask, value); break;
    case reg_mode: c.channels[value & 3].mode = value; break;
    case reg_clear_flip_flop: c.high_byte = false; break;
    case reg_temporary_master_clear:
        c.command = c.status = c.request = 0;
        c.mask = channel_bits;
        c.high_byte = false;
        break;
    case reg_clear_mask: c.mask = 0; break;
    case reg_write_mask: c.mask = value & channel_bits; break;
    default: break;
    }
}

std::uint64_t I8237Pair::Pages::read(std::uint64_t offset, unsigned) {
    return offset < page_size ? device.state_.pages[offset] : 0xff;
}

void I8237Pair::Pages::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    if (offset < page_size) device.state_.pages[offset] = std::uint8_t(value);
}

void I8237Pair::save(StateWriter& to) const { save_state(to, state_); }

Result<void> I8237Pair::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    for (Controller const& c : loaded.controllers)
        if ((c.mask | c.request) & ~channel_bits) return error("a DMA controller register names a fifth channel");
    state_ = loaded;
    return {};
}

} // namespace vmm::dev
