// Rigs (see device_conformance.h) for devices/input.
#pragma once
#include "devices/input/i8042.h"
#include "devices/input/ps2_keyboard.h"
#include "devices/input/ps2_mouse.h"
#include "tests/support/composite.h"
#include "tests/support/device_conformance.h"
#include "tests/support/fake_irq_line.h"

namespace vmm::test {

// The controller with both of its devices.
struct I8042Rig {
    FakeClock clock;
    TimerQueue timers{clock};
    FakeIrqLine irq1, irq12, a20, reset;
    dev::Ps2Keyboard keyboard;
    dev::Ps2Mouse mouse;
    Log log{"test"};
    dev::I8042 controller{{irq1, irq12, a20, reset, keyboard, mouse, log}};
    CompositeResettable all_reset{{&controller, &keyboard, &mouse}};
    CompositeSnapshottable all_saved{{&controller, &keyboard, &mouse}};
    dev::Resettable& resettable() { return all_reset; }
    dev::Snapshottable& snapshottable() { return all_saved; }
    std::vector<IoWindow> windows() { return {{&controller.data(), 1, 1}, {&controller.command(), 1, 1}}; }
    void stimulate(std::uint64_t random) {
        // Modifiers and buttons stay as they are held over a reset, so none are pressed here.
        if (random & 1)
            mouse.mouse(int(random >> 8 & 0x3ff) - 512, int(random >> 18 & 0x3ff) - 512, int(random >> 28 & 7) - 4, 0);
        else if (random & 2)
            keyboard.key(dev::Key::a, random & 4);
        else
            keyboard.key(dev::Key::print, random & 4);
    }
};

} // namespace vmm::test
