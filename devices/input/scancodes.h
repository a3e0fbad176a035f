// Scan codes of PC keyboards: sets 1, 2 and 3, and the keyboard controller's translation of set 2 into set 1 (IBM PS/2
// Hardware Interface Technical Reference, "Keyboards" and "Keyboard and Auxiliary Device Controller").
#pragma once
#include "devices/input/input_sink.h"

#include <array>
#include <cstdint>

namespace vmm::dev {

// The bytes of one key event; the longest is Pause in set 2.
struct ScanSequence {
    std::array<std::uint8_t, 8> bytes{};
    unsigned count = 0;
};

enum class ScanSet : std::uint8_t { set1 = 1, set2 = 2, set3 = 3 };

// Which modifiers are held changes what Print Screen sends (sets 1 and 2).
struct ScanModifiers {
    bool shift_or_ctrl = false, alt = false;
};

// The code of `key` in set 3, 0 for none.
std::uint8_t set3_code(Key key);

// What `key` sends. `breaks`: whether set 3 keys send break codes. Nothing for a key the set has no code for.
ScanSequence scan_sequence(ScanSet set, Key key, bool down, ScanModifiers held, bool breaks);

// The controller's translation of one byte (not of the F0 prefix, which sets bit 7 of the next).
std::uint8_t translate_set2(std::uint8_t byte);

} // namespace vmm::dev
