// Mc146818: real-time clock and CMOS RAM. Datasheet: Motorola MC146818A; PIIX4 section 11 (the extended 128 bytes at
// ports 0x72/0x73). The time is never stepped: it is the wall clock plus an offset, and flags are worked out when
// looked at; timers run only for interrupts that are enabled.
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "vmm/base/timer_queue.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>

namespace vmm::dev {

// Ports 0x70..0x73. Device lock held for every member.
class Mc146818 final : public IoHandler, public Resettable, public Snapshottable {
public:
    struct Needs {
        IrqLine& irq; // IRQ 8
        TimerQueue& timers;
        // Nanoseconds since 1970: the host's clock, or the virtual clock for one that stops with the machine.
        Clock const& wall;
    };
    struct Config {
        // Added to the wall clock: 0 for UTC, the zone's offset for local time, start minus wall.now() for a date.
        Nanoseconds base_offset = 0;
        // Periodic interrupts that came while one was still unread are given later (QEMU's driftfix=slew), for guests
        // that count them.
        bool slew = false;
    };
    struct State {
        std::uint8_t index = 0;
        std::uint8_t extended_index = 0;
        std::array<std::uint8_t, 128> cmos{}; // registers A..D included; time registers valid while the clock is held
        std::array<std::uint8_t, 128> extended{};
        Nanoseconds offset = 0;        // clock time = wall + offset, while it runs
        Nanoseconds held_part = 0;     // the part of a second at which a held clock stands
        std::uint8_t weekday_skew = 0; // day-of-week register minus the calendar's, modulo 7
        Nanoseconds flags_seen = 0;    // periodic flags are settled up to this virtual time,
        Nanoseconds second_seen = 0;   // update and alarm flags up to this clock time
        std::uint32_t owed = 0;        // periodic interrupts lost, to be made up for
    };

    Mc146818(Needs needs, Config config);

    // CMOS bytes as the board fills them (memory sizes, boot order, equipment); not for the time registers.
    void set_cmos(std::uint8_t index, std::uint8_t value) { state_.cmos[index & 127] = value; }
    std::uint8_t cmos(std::uint8_t index) const { return state_.cmos[index & 127]; }
    // Bit 7 of port 0x70: the guest masks NMIs.
    bool nmi_masked() const { return state_.index & 0x80; }

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    // RESET pin: interrupts off; time, RAM and the other registers are kept by the battery.
    void reset() override;
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;

    static constexpr std::uint32_t max_owed = 1000; // beyond, the guest is not keeping up and never will
    static constexpr std::uint8_t century = 0x32;   // where PC firmware and ACPI's FADT expect it

private:
    bool held() const;
    Nanoseconds clock_time() const { return needs_.wall.now() + state_.offset; }
    void show_time();
    void take_time();
    std::uint8_t read_register(std::uint8_t index);
    void write_register(std::uint8_t index, std::uint8_t value);
    void write_control(std::uint8_t index, std::uint8_t value);
    std::uint8_t encode(unsigned value) const;
    unsigned decode(std::uint8_t value) const;
    std::uint8_t encode_hour(unsigned hour) const;
    unsigned decode_hour(std::uint8_t value) const;
    Nanoseconds periodic_interval_ticks() const;
    std::int64_t next_alarm(std::int64_t after_second) const;
    void settle();
    void update_line();
    void arm();

    Needs needs_;
    bool slew_;
    State state_;
    Timer timer_;
};

template <class V> void fields(V& v, Mc146818::State& s) {
    v.field("index", s.index);
    v.field("extended_index", s.extended_index);
    v.field("cmos", s.cmos);
    v.field("extended", s.extended);
    v.field("offset", s.offset);
    v.field("held_part", s.held_part);
    v.field("weekday_skew", s.weekday_skew);
    v.field("flags_seen", s.flags_seen);
    v.field("second_seen", s.second_seen);
    v.field("owed", s.owed);
}

} // namespace vmm::dev
