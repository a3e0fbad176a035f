#include "devices/platform/port92.h"

namespace vmm::dev {

namespace {
enum : std::uint8_t { fast_reset = 0x01, fast_a20 = 0x02 };
}

template <class V> void fields(V& v, Port92::State& s) { v.field("control", s.control); }

std::uint64_t Port92::read(std::uint64_t, unsigned) { return state_.control; }

void Port92::write(std::uint64_t, unsigned, std::uint64_t value) {
    bool fire = (value & fast_reset) && !(state_.control & fast_reset);
    state_.control = std::uint8_t(value);
    needs_.a20.set(value & fast_a20);
    if (fire) needs_.reset.pulse();
}

void Port92::reset() {
    state_ = State{};
    needs_.a20.set(false);
}

void Port92::save(StateWriter& to) const { save_state(to, state_); }

Result<void> Port92::load(StateReader& from) {
    state_ = TRY(load_state<State>(from));
    needs_.a20.set(state_.control & fast_a20);
    return {};
}

} // namespace vmm::dev
