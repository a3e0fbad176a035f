// I8254: the programmable interval timer, three counters at 1.193182 MHz. Datasheet: Intel 8254 (order 231164).
// Counts are never stepped: each is a function of virtual time and the moment the counting element was loaded.
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "devices/timer/rate.h"
#include "vmm/base/timer_queue.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>

namespace vmm::dev {

// Ports 0x40..0x43. Device lock held for every member. GATE of counters 0 and 1 is tied high, as on a PC.
class I8254 final : public IoHandler, public Resettable, public Snapshottable {
public:
    static constexpr Rate clock{1'193'182};
    struct Needs {
        IrqLine& out0; // OUT of counter 0: IRQ 0
        TimerQueue& timers;
    };
    struct Counter {
        std::uint8_t control = 0x30;      // RW1 RW0 M2 M1 M0 BCD, as written
        std::uint32_t count_register = 0; // CR as a count, 1..65536; 0: none written since the control word
        bool reload_pending = false;      // CR is not in the counting element yet ("null count")
        bool loaded = false;              // the counting element was loaded since the control word
        std::uint32_t period = 1;         // what it was loaded with
        std::int64_t start = 0;           // the tick at which it held `period`
        bool paused = false;              // GATE holds it at `held` elapsed ticks
        std::int64_t held = 0;
        bool gate = true;
        bool retriggered = false;     // mode 1: OUT was low when the trigger came, and stays so
        bool write_high_next = false; // two-byte accesses under way
        bool read_high_next = false;
        std::uint8_t write_low = 0;
        bool count_latched = false;
        std::uint16_t latched_count = 0;
        bool status_latched = false;
        std::uint8_t latched_status = 0;
    };
    struct State {
        std::array<Counter, 3> counters;
        Nanoseconds next_interrupt = -1; // when OUT 0 rises next; -1: never
    };

    explicit I8254(Needs needs);

    // OUT of a counter, now.
    bool out(unsigned counter) const;
    bool gate(unsigned counter) const { return state_.counters[counter].gate; }
    // What firmware does: counter 0 ticks 18.2 times a second. For booting without firmware.
    void set_up_as_firmware();
    // Whether anything sees OUT 0, at first yes. While nothing does (the HPET has taken its place), no timer runs for
    // it.
    void watch_out0(bool watched);
    // GATE of counter 2 comes from port 0x61.
    void set_gate(unsigned counter, bool level);
    // Ticks between rising edges in modes 2 and 3 (for a speaker), 0 when the counter does not oscillate.
    std::uint32_t oscillation_period(unsigned counter) const;
    Nanoseconds now() const { return needs_.timers.now(); }

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override;
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;
    // Takes over a state, wherever it comes from; without a next interrupt it works that out. Errors: values it cannot
    // have.
    Result<void> adopt(State const& state);
    State const& state() const { return state_; }

private:
    std::int64_t tick() const { return clock.ticks_at(needs_.timers.now()); }
    void write_control(std::uint8_t value);
    void read_back(std::uint8_t command);
    void write_count(Counter& counter, std::uint8_t value);
    std::uint8_t read_count(Counter& counter);
    void run_up_to_now();
    void counter0_changed();
    void timer_fired();

    Needs needs_;
    State state_;
    Timer timer_;
    bool out0_watched_ = true; // the board's wiring, which is told again after a load
};

template <class V> void fields(V& v, I8254::Counter& s) {
    v.field("control", s.control);
    v.field("count_register", s.count_register);
    v.field("reload_pending", s.reload_pending);
    v.field("loaded", s.loaded);
    v.field("period", s.period);
    v.field("start", s.start);
    v.field("paused", s.paused);
    v.field("held", s.held);
    v.field("gate", s.gate);
    v.field("retriggered", s.retriggered);
    v.field("write_high_next", s.write_high_next);
    v.field("read_high_next", s.read_high_next);
    v.field("write_low", s.write_low);
    v.field("count_latched", s.count_latched);
    v.field("latched_count", s.latched_count);
    v.field("status_latched", s.status_latched);
    v.field("latched_status", s.latched_status);
}
template <class V> void fields(V& v, I8254::State& s) {
    v.field("counters", s.counters);
    v.field("next_interrupt", s.next_interrupt);
}

} // namespace vmm::dev
