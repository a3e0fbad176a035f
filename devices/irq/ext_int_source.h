// ExtIntSource: what a CPU asks for a vector in an INTA cycle.
#pragma once

namespace vmm::dev {

class ExtIntSource {
public:
    virtual ~ExtIntSource() = default;
    // The interrupt acknowledge cycle: marks the interrupt in service and returns its vector (0..255). An 8259 answers
    // every cycle, with its spurious vector when nothing is pending any more. Device lock held.
    virtual int acknowledge() = 0;
};

} // namespace vmm::dev
