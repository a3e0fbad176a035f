// TerminalModes: notes which modes of the user's terminal the guest's output has changed, so that leaving can undo
// them.
#pragma once
#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <string_view>

namespace vmm::ui {

// A small recognizer of the escape sequences that outlive a program (ECMA-48 CSI, DEC private modes). feed() is called
// by one thread at a time; undo() is async-signal-safe.
class TerminalModes {
public:
    void feed(std::span<std::uint8_t const> bytes);
    // The sequences that bring the terminal back, written into `buffer`; a view of it. Empty when nothing was output.
    static constexpr std::size_t max_undo = 192;
    std::string_view undo(std::array<char, max_undo>& buffer) const;

private:
    void finish_csi(char final);
    void set_private_mode(unsigned mode, bool on);

    enum class State : std::uint8_t { ground, escape, csi, charset };
    State state_ = State::ground;
    bool private_ = false;
    std::array<unsigned, 8> parameters_{};
    unsigned count_ = 0;
    bool any_digit_ = false;
    std::atomic<bool> used_{false};
    std::atomic<std::uint32_t> changed_{0}; // bits of terminal_modes.cpp's table
};

} // namespace vmm::ui
