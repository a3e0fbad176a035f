// IrqInputs: the input pins of an interrupt controller, each an IrqLine that tells its owner (pin, level).
#pragma once
#include "devices/core/irq_line.h"

#include <array>
#include <cstddef>

namespace vmm::dev {

// Owned by, and as long-lived as, `Owner`, whose `void set_input(unsigned pin, bool level)` it calls. Device lock held.
template <class Owner, std::size_t N> class IrqInputs {
public:
    explicit IrqInputs(Owner& owner) {
        for (std::size_t i = 0; i < N; ++i) lines_[i].owner = &owner, lines_[i].pin = unsigned(i);
    }
    IrqInputs(IrqInputs const&) = delete;
    IrqInputs& operator=(IrqInputs const&) = delete;
    IrqLine& operator[](std::size_t pin) { return lines_.at(pin); }

private:
    struct Line final : IrqLine {
        Owner* owner = nullptr;
        unsigned pin = 0;
        void set(bool level) override { owner->set_input(pin, level); }
    };
    std::array<Line, N> lines_;
};

} // namespace vmm::dev
