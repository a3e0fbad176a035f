#include "devices/timer/speaker_gate.h"

namespace vmm::dev {

namespace {
constexpr std::uint8_t gate2 = 0x01, control_writable = 0x0f, refresh_toggle = 0x10, out2 = 0x20;
constexpr std::int64_t refresh_ticks = 18; // DRAM refresh every 15 us: counter 1 as every PC firmware programs it
} // namespace

void SpeakerGate::reset() {
    state_ = {};
    pit_.set_gate(2, false);
}

Result<void> SpeakerGate::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.control & ~control_writable) return error("port 0x61's state holds bits it does not have");
    state_ = loaded; // counter 2's gate is part of the 8254's own state
    return {};
}

std::uint64_t SpeakerGate::read(std::uint64_t, unsigned) {
    bool toggle = I8254::clock.ticks_at(pit_.now()) / refresh_ticks & 1;
    return state_.control | (toggle ? refresh_toggle : 0) | (pit_.out(2) ? out2 : 0);
}

void SpeakerGate::write(std::uint64_t, unsigned, std::uint64_t value) {
    state_.control = std::uint8_t(value) & control_writable;
    pit_.set_gate(2, state_.control & gate2);
}

} // namespace vmm::dev
