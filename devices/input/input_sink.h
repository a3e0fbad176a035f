// What a user's hands do, as a display or `sendkey` hands it to whichever input device listens.
#pragma once
#include <cstdint>

namespace vmm::dev {

// A key by its place on a PC keyboard, whatever is printed on it: its scan code of set 1, plus 0x80 for those that
// follow an E0 prefix there. Any value is allowed; those without a key send what that code would.
// clang-format off
enum class Key : std::uint8_t {
    esc = 0x01, digit1 = 0x02, digit2 = 0x03, digit3 = 0x04, digit4 = 0x05, digit5 = 0x06, digit6 = 0x07,
    digit7 = 0x08, digit8 = 0x09, digit9 = 0x0a, digit0 = 0x0b, minus = 0x0c, equal = 0x0d, backspace = 0x0e,
    tab = 0x0f, q = 0x10, w = 0x11, e = 0x12, r = 0x13, t = 0x14, y = 0x15, u = 0x16, i = 0x17, o = 0x18, p = 0x19,
    bracket_left = 0x1a, bracket_right = 0x1b, ret = 0x1c, ctrl = 0x1d, a = 0x1e, s = 0x1f, d = 0x20, f = 0x21,
    g = 0x22, h = 0x23, j = 0x24, k = 0x25, l = 0x26, semicolon = 0x27, apostrophe = 0x28, grave_accent = 0x29,
    shift = 0x2a, backslash = 0x2b, z = 0x2c, x = 0x2d, c = 0x2e, v = 0x2f, b = 0x30, n = 0x31, m = 0x32,
    comma = 0x33, dot = 0x34, slash = 0x35, shift_r = 0x36, kp_multiply = 0x37, alt = 0x38, space = 0x39,
    caps_lock = 0x3a, f1 = 0x3b, f2 = 0x3c, f3 = 0x3d, f4 = 0x3e, f5 = 0x3f, f6 = 0x40, f7 = 0x41, f8 = 0x42,
    f9 = 0x43, f10 = 0x44, num_lock = 0x45, scroll_lock = 0x46, kp_7 = 0x47, kp_8 = 0x48, kp_9 = 0x49,
    kp_subtract = 0x4a, kp_4 = 0x4b, kp_5 = 0x4c, kp_6 = 0x4d, kp_add = 0x4e, kp_1 = 0x4f, kp_2 = 0x50, kp_3 = 0x51,
    kp_0 = 0x52, kp_decimal = 0x53, sysrq = 0x54, less = 0x56, f11 = 0x57, f12 = 0x58, kp_enter = 0x9c,
    ctrl_r = 0x9d, kp_divide = 0xb5, print = 0xb7, alt_r = 0xb8, pause = 0xc6, home = 0xc7, up = 0xc8,
    page_up = 0xc9, left = 0xcb, right = 0xcd, end = 0xcf, down = 0xd0, page_down = 0xd1, insert = 0xd2, del = 0xd3,
    meta_l = 0xdb, meta_r = 0xdc, menu = 0xdd, power = 0xde, sleep = 0xdf, wake = 0xe3,
};
// clang-format on

// A keyboard. Device lock.
class KeySink {
public:
    virtual ~KeySink() = default;
    // A key goes down or up. No repeats: holding a key is one `down`.
    virtual void key(Key code, bool down) = 0;
};

// The buttons of MouseSink::mouse.
enum MouseButtons : std::uint8_t {
    mouse_left = 1,
    mouse_right = 2,
    mouse_middle = 4,
    mouse_side = 8,
    mouse_extra = 16,
};

// A pointing device that reports movement. Device lock.
class MouseSink {
public:
    virtual ~MouseSink() = default;
    // Movement since the last call: x to the right, y down, wheel dz towards the user; `buttons` (MouseButtons) are
    // those held now.
    virtual void mouse(int dx, int dy, int dz, std::uint8_t buttons) = 0;
};

} // namespace vmm::dev
