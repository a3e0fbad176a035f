// SpeakerGate: port 0x61, NMI status and control: the speaker's gate on the 8254's counter 2 and the refresh toggle.
// PIIX3 section 2.5.10 (NMISC).
#pragma once
#include "devices/core/roles.h"
#include "devices/timer/i8254.h"

namespace vmm::dev {

// Device lock held for every member.
class SpeakerGate final : public IoHandler, public Resettable, public Snapshottable {
public:
    struct State {
        std::uint8_t control = 0; // bits 0..3 as written
    };
    explicit SpeakerGate(I8254& pit) : pit_(pit) { reset(); }

    // Whether the speaker is connected to OUT 2.
    bool speaker_on() const { return state_.control & 2; }

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override;
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;

private:
    I8254& pit_;
    State state_;
};

template <class V> void fields(V& v, SpeakerGate::State& s) { v.field("control", s.control); }

} // namespace vmm::dev
