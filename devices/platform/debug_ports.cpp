#include "devices/platform/debug_ports.h"

namespace vmm::dev {

std::uint64_t DebugConsole::read(std::uint64_t, unsigned) { return readback; }

void DebugConsole::write(std::uint64_t, unsigned, std::uint64_t value) {
    auto byte = std::uint8_t(value);
    output_.write({&byte, 1});
}

std::uint64_t IsaDebugExit::read(std::uint64_t, unsigned) { return 0; }

void IsaDebugExit::write(std::uint64_t, unsigned, std::uint64_t value) {
    // The shift loses the top bit, as the program's status loses all but eight.
    exit_(int(std::uint32_t(value) << 1 | 1));
}

template <class V> void fields(V& v, PostPort::State& s) { v.field("code", s.code); }

std::uint64_t PostPort::read(std::uint64_t, unsigned) { return state_.code; }
void PostPort::write(std::uint64_t, unsigned, std::uint64_t value) { state_.code = std::uint8_t(value); }
void PostPort::save(StateWriter& to) const { save_state(to, state_); }
Result<void> PostPort::load(StateReader& from) {
    state_ = TRY(load_state<State>(from));
    return {};
}

} // namespace vmm::dev
