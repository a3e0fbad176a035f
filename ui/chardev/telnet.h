// TelnetFilter: the telnet protocol's commands, taken out of and put into a byte stream (RFC 854, 857, 858).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace vmm::ui {

// One connection. Answers no negotiation: what matters is offered at the start, the rest is refused by silence.
class TelnetFilter {
public:
    // What is sent to a client that has just connected: we echo, no go-ahead, binary both ways.
    static std::span<std::uint8_t const> greeting();
    // The data bytes of `input`; sets `breaks` to how often the client asked for a break.
    std::vector<std::uint8_t> decode(std::span<std::uint8_t const> input, unsigned& breaks);

private:
    enum class State : std::uint8_t { data, command, option, subnegotiation, subnegotiation_command };
    State state_ = State::data;
    bool after_cr_ = false;
};

} // namespace vmm::ui
