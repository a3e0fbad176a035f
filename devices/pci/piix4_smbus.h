// Piix4Smbus: the SMBus host controller of the 82371AB (data sheet section 11.5), with no devices on its bus.
#pragma once
#include "devices/core/roles.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>

namespace vmm::dev {

// Sixteen ports. Every transaction ends at once, unacknowledged (DEV_ERR), as on a bus with nothing attached. Saved as
// part of Piix4Pm. Device lock.
class Piix4Smbus final : public IoHandler {
public:
    static constexpr std::uint64_t region_size = 16;
    static constexpr AccessRules access_rules{.max_guest = 4, .max_impl = 1};
    static constexpr unsigned block_size = 32;
    struct State {
        std::uint8_t host_status = 0, slave_status = 0, host_control = 0, host_command = 0, host_address = 0;
        std::uint8_t data0 = 0, data1 = 0, slave_control = 0;
        std::array<std::uint8_t, block_size> block{};
        std::uint8_t block_index = 0;
    };

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    State const& state() const { return state_; }
    static Result<void> check(State const& state);
    void restore(State const& state) { state_ = state; }

private:
    std::uint8_t& next_block_byte();
    State state_;
};

template <class V> void fields(V& v, Piix4Smbus::State& s) {
    v.field("host_status", s.host_status);
    v.field("slave_status", s.slave_status);
    v.field("host_control", s.host_control);
    v.field("host_command", s.host_command);
    v.field("host_address", s.host_address);
    v.field("data0", s.data0);
    v.field("data1", s.data1);
    v.field("slave_control", s.slave_control);
    v.field("block", s.block);
    v.field("block_index", s.block_index);
}

} // namespace vmm::dev
