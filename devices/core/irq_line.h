// IrqLine: one interrupt (or reset, or NMI) wire, seen from the device that drives it.
#pragma once

namespace vmm::dev {

// Level semantics: set(true) asserts, set(false) deasserts; repeating a level is allowed and changes nothing. An
// edge-triggered input sees the rising edge. Device lock held.
class IrqLine {
public:
    virtual ~IrqLine() = default;
    virtual void set(bool level) = 0;
    // A pulse: for edge sources.
    void pulse() { set(true), set(false); }
};

} // namespace vmm::dev
