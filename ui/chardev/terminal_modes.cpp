#include "ui/chardev/terminal_modes.h"

#include <cstring>

namespace vmm::ui {

namespace {
// What can be changed, and how it is undone. A bit of TerminalModes::changed_ is a row's index.
struct Row {
    unsigned mode;    // DEC private mode, or 0 for the rows that other sequences set
    bool normally_on; // the mode's state in an ordinary shell
    char const* undo;
};
constexpr Row rows[] = {
    {1049, false, "\x1b[?1049l"}, // alternate screen, saving the cursor
    {1047, false, "\x1b[?1047l"}, // the same, without
    {47, false, "\x1b[?47l"},     // the same, older
    {1, false, "\x1b[?1l"},       // application cursor keys
    {1000, false, "\x1b[?1000l"}, // mouse reports
    {1002, false, "\x1b[?1002l"},
    {1003, false, "\x1b[?1003l"},
    {1006, false, "\x1b[?1006l"},
    {2004, false, "\x1b[?2004l"}, // bracketed paste
    {6, false, "\x1b[?6l"},       // origin mode
    {5, false, "\x1b[?5l"},       // reverse screen
    {0, false, "\x1b>"},          // application keypad
    {0, false, "\x1b(B"},         // line-drawing character set
    {0, false,
     "\x1b"
     "7\x1b[r\x1b"
     "8"}, // scroll region; setting it moves the cursor
};
constexpr unsigned keypad_row = 11, charset_row = 12, scroll_row = 13;
// Undone whenever anything was output: wrapping, colours and the cursor; harmless when they are as they should be.
constexpr char const* always = "\x1b[?7h\x1b[0m\x1b[?25h";
} // namespace

void TerminalModes::feed(std::span<std::uint8_t const> bytes) {
    if (!bytes.empty()) used_.store(true, std::memory_order_relaxed);
    auto put = [&](unsigned row, bool on) {
        if (on)
            changed_.fetch_or(1u << row, std::memory_order_relaxed);
        else
            changed_.fetch_and(~(1u << row), std::memory_order_relaxed);
    };
    for (std::uint8_t c : bytes) {
        switch (state_) {
        case State::ground:
            if (c == 0x1b) state_ = State::escape;
            break;
        case State::escape:
            state_ = State::ground;
            if (c == '[') {
                state_ = State::csi;
                private_ = any_digit_ = false;
                parameters_ = {};
                count_ = 0;
            } else if (c == '=' || c == '>') {
                put(keypad_row, c == '=');
            } else if (c == '(') {
                state_ = State::charset;
            } else if (c == 'c') { // full reset
                changed_.store(0, std::memory_order_relaxed);
            } else if (c == 0x1b) {
                state_ = State::escape;
            }
            break;
        case State::charset:
            put(charset_row, c != 'B');
            state_ = State::ground;
            break;
        case State::csi:
            if (c == '?') {
                private_ = true;
            } else if (c >= '0' && c <= '9') {
                any_digit_ = true;
                unsigned& p = parameters_[count_];
                if (p < 100000) p = p * 10 + (c - '0');
            } else if (c == ';') {
                if (count_ + 1 < parameters_.size()) ++count_;
            } else if (c == 0x1b) {
                state_ = State::escape;
            } else if (c >= 0x40) {
                finish_csi(char(c));
                state_ = State::ground;
            }
            break;
        }
    }
}

void TerminalModes::finish_csi(char final) {
    if (private_ && (final == 'h' || final == 'l')) {
        for (unsigned i = 0; i <= count_; ++i) set_private_mode(parameters_[i], final == 'h');
    } else if (!private_ && final == 'r') {
        if (any_digit_)
            changed_.fetch_or(1u << scroll_row, std::memory_order_relaxed);
        else
            changed_.fetch_and(~(1u << scroll_row), std::memory_order_relaxed);
    }
}

void TerminalModes::set_private_mode(unsigned mode, bool on) {
    if (mode == 0) return;
    for (unsigned row = 0; row < std::size(rows); ++row) {
        if (rows[row].mode != mode) continue;
        if (on != rows[row].normally_on)
            changed_.fetch_or(1u << row, std::memory_order_relaxed);
        else
            changed_.fetch_and(~(1u << row), std::memory_order_relaxed);
    }
}

std::string_view TerminalModes::undo(std::array<char, max_undo>& buffer) const {
    if (!used_.load(std::memory_order_relaxed)) return {};
    std::size_t size = 0;
    auto append = [&](char const* text) {
        std::size_t n = std::strlen(text);
        if (size + n > buffer.size()) return;
        std::memcpy(buffer.data() + size, text, n);
        size += n;
    };
    append(always);
    std::uint32_t changed = changed_.load(std::memory_order_relaxed);
    for (unsigned row = 0; row < std::size(rows); ++row)
        if (changed & (1u << row)) append(rows[row].undo);
    return {buffer.data(), size};
}

} // namespace vmm::ui
