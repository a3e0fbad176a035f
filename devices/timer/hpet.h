// Hpet: IA-PC high precision event timers, specification 1.0a. Registers and bits are named as there (section 2.3).
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/msi_target.h"
#include "devices/core/roles.h"
#include "vmm/base/timer_queue.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

namespace vmm::dev {

// A 0x400-byte MMIO window (0xfed00000 on a PC), accesses of 4 or 8 bytes. The main counter runs at 100 MHz. Device
// lock held for every member.
class Hpet final : public IoHandler, public Resettable, public Snapshottable {
public:
    static constexpr unsigned timer_count = 3;
    static constexpr Nanoseconds tick = 10;
    struct Needs {
        TimerQueue& timers;
        IrqLine& irq0;              // where timer 0, or else the 8254, drives in legacy replacement mode
        IrqLine& irq8;              // the same for timer 1 and the RTC
        std::vector<IrqLine*> pins; // I/O APIC inputs by number; null where the board wires none
        MsiTarget* msi = nullptr;   // where FSB interrupts go; null: not supported
        std::function<void(bool replaced)> on_legacy{}; // irq0 and irq8 are taken from the 8254 and the RTC, or back
    };
    struct Config {
        std::uint32_t route_capability = 0x00000004; // I/O APIC inputs every timer may use
    };
    struct TimerState {
        std::uint32_t config = 0;         // Tn_CONF's writable bits
        std::uint64_t comparator = ~0ull; // section 2.3.9: all ones after reset
        std::uint64_t period = 0;
        std::uint64_t fsb_route = 0;
        std::uint64_t seen = 0; // matches up to this counter value have been dealt with
    };
    struct State {
        std::uint64_t config = 0;      // GEN_CONF
        std::uint32_t status = 0;      // GINTR_STA
        std::uint64_t counter = 0;     // MAIN_CNT when it was last started or stopped
        Nanoseconds counter_start = 0; // when that was, while it runs
        bool pit_level = false;        // the levels of the lines it may replace
        bool rtc_level = false;
        std::array<TimerState, timer_count> timers;
    };

    Hpet(Needs needs, Config config);

    // What the 8254's OUT 0 and the RTC's IRQ are wired to: passed on to irq0 and irq8 unless replaced.
    IrqLine& pit_input() { return pit_input_; }
    IrqLine& rtc_input() { return rtc_input_; }

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override;
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;

private:
    struct ReplacedLine final : IrqLine {
        Hpet& hpet;
        bool State::*level;
        IrqLine& out;
        ReplacedLine(Hpet& h, bool State::*l, IrqLine& o) : hpet(h), level(l), out(o) {}
        void set(bool value) override;
    };

    bool running() const;
    bool legacy() const;
    std::uint64_t counter() const;
    std::uint64_t capabilities() const;
    std::uint64_t timer_config(unsigned n) const;
    IrqLine* line_of(unsigned n) const;

    void settle(unsigned n);
    void settle_all();
    void fire(unsigned n);
    void arm(unsigned n);
    void drive(bool asserted);

    std::uint64_t read_register(std::uint64_t offset) const;
    void write_register(std::uint64_t offset, std::uint64_t value, std::uint64_t mask);
    void write_timer(unsigned n, std::uint64_t reg, std::uint64_t value, std::uint64_t mask);
    void write_general_config(std::uint64_t value);
    void write_timer_config(TimerState& t, std::uint64_t value);
    void write_comparator(TimerState& t, std::uint64_t value, std::uint64_t mask);

    Needs needs_;
    Config config_;
    State state_;
    ReplacedLine pit_input_, rtc_input_;
    std::array<std::unique_ptr<Timer>, timer_count> timers_;
};

template <class V> void fields(V& v, Hpet::TimerState& s) {
    v.field("config", s.config);
    v.field("comparator", s.comparator);
    v.field("period", s.period);
    v.field("fsb_route", s.fsb_route);
    v.field("seen", s.seen);
}
template <class V> void fields(V& v, Hpet::State& s) {
    v.field("config", s.config);
    v.field("status", s.status);
    v.field("counter", s.counter);
    v.field("counter_start", s.counter_start);
    v.field("pit_level", s.pit_level);
    v.field("rtc_level", s.rtc_level);
    v.field("timers", s.timers);
}

} // namespace vmm::dev
