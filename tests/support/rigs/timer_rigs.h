// Rigs of the timers, for the conformance suite and the fuzz targets.
#pragma once
#include "devices/timer/hpet.h"
#include "devices/timer/mc146818.h"
#include "devices/timer/speaker_gate.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fake_irq_line.h"

namespace vmm::test {

struct PitConformanceRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq;
    dev::I8254 pit{{irq, timers}};
    dev::Resettable& resettable() { return pit; }
    dev::Snapshottable& snapshottable() { return pit; }
    std::vector<IoWindow> windows() { return {{&pit, 4, 1}}; }
    void stimulate(std::uint64_t r) { pit.set_gate(2, r & 1); }
};
struct SpeakerGateConformanceRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq;
    dev::I8254 pit{{irq, timers}};
    dev::SpeakerGate gate{pit};
    dev::Resettable& resettable() { return gate; }
    dev::Snapshottable& snapshottable() { return gate; }
    std::vector<IoWindow> windows() { return {{&gate, 1, 1}}; }
};
struct RtcConformanceRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq;
    dev::Mc146818 rtc{{irq, timers, clock}, {.base_offset = 1'700'000'000 * nanoseconds_per_second}};
    static constexpr bool keeps_state_over_reset = true;
    dev::Resettable& resettable() { return rtc; }
    dev::Snapshottable& snapshottable() { return rtc; }
    std::vector<IoWindow> windows() { return {{&rtc, 4, 1}}; }
    // The bytes that matter are few among 128: aim at the registers.
    void stimulate(std::uint64_t r) {
        rtc.write(0, 1, r & 15);
        rtc.write(1, 1, r >> 8 & 0xff);
    }
};
struct HpetConformanceRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq0, irq8, pin;
    struct Msi final : dev::MsiTarget {
        void deliver_msi(std::uint64_t, std::uint32_t) override {}
    } msi;
    dev::Hpet hpet{{timers, irq0, irq8, std::vector<dev::IrqLine*>(24, &pin), &msi}, {.route_capability = 0xf00004}};
    static constexpr bool keeps_state_over_reset = true; // the levels of the lines it may replace
    dev::Resettable& resettable() { return hpet; }
    dev::Snapshottable& snapshottable() { return hpet; }
    std::vector<IoWindow> windows() { return {{&hpet, 0x180, 8}}; }
    void stimulate(std::uint64_t r) {
        switch (r & 3) {
        case 0: hpet.pit_input().set(r >> 2 & 1); break;
        case 1: hpet.rtc_input().set(r >> 2 & 1); break;
        case 2: hpet.write(0x10, 8, r >> 2 & 3); break;
        default: hpet.write(0x108 + 0x20 * (r >> 8 & 1), 8, hpet.read(0xf0, 8) + (r >> 48)); break;
        }
    }
};
} // namespace vmm::test
