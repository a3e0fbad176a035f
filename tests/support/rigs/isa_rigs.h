// Rigs (see device_conformance.h) for devices/isa.
#pragma once
#include "devices/isa/i8237.h"
#include "tests/support/device_conformance.h"

namespace vmm::test {

struct DmaRig {
    FakeClock clock;
    TimerQueue timers{clock};
    dev::I8237Pair dma;
    dev::Resettable& resettable() { return dma; }
    dev::Snapshottable& snapshottable() { return dma; }
    std::vector<IoWindow> windows() {
        return {{&dma.first(), 16, 1}, {&dma.second(), 32, 1}, {&dma.pages(), dev::I8237Pair::page_size, 1}};
    }
};

} // namespace vmm::test
