// Rigs (see device_conformance.h) for devices/serial.
#pragma once
#include "devices/serial/uart16550.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fake_char_sink.h"
#include "tests/support/fake_irq_line.h"

namespace vmm::test {

struct UartRig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq;
    FakeCharSink sink;
    dev::Uart16550 uart{{irq, timers, sink}};

    dev::Resettable& resettable() { return uart; }
    dev::Snapshottable& snapshottable() { return uart; }
    std::vector<IoWindow> windows() { return {{&uart, dev::Uart16550::region_size, 1}}; }
    void stimulate(std::uint64_t random) {
        auto byte = std::uint8_t(random >> 8);
        switch (random % 3) {
        case 0:
            if (uart.can_receive()) uart.receive({&byte, 1});
            break;
        case 1: uart.receive_break(); break;
        // Room is given for good: a twin's sink must be as full as its original's.
        default: sink.make_room(SIZE_MAX); break;
        }
    }
};

} // namespace vmm::test
