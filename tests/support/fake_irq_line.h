// FakeIrqLine: an IrqLine that remembers its level and how often it rose.
#pragma once
#include "devices/core/irq_line.h"

namespace vmm::test {

class FakeIrqLine final : public dev::IrqLine {
public:
    void set(bool level) override {
        if (level && !level_) ++rises_;
        level_ = level;
    }
    bool level() const { return level_; }
    // Rising edges since construction.
    unsigned rises() const { return rises_; }

private:
    bool level_ = false;
    unsigned rises_ = 0;
};

} // namespace vmm::test
