#include "ui/chardev/telnet.h"

namespace vmm::ui {

namespace {
constexpr std::uint8_t iac = 255, will = 251, do_ = 253, dont = 254, sb = 250, se = 240, brk = 243, ip = 244;
constexpr std::uint8_t opt_binary = 0, opt_echo = 1, opt_no_go_ahead = 3;
constexpr std::uint8_t hello[] = {iac, will, opt_echo,   iac, will, opt_no_go_ahead,
                                  iac, will, opt_binary, iac, do_,  opt_binary};
} // namespace

std::span<std::uint8_t const> TelnetFilter::greeting() { return hello; }

std::vector<std::uint8_t> TelnetFilter::decode(std::span<std::uint8_t const> input, unsigned& breaks) {
    std::vector<std::uint8_t> data;
    breaks = 0;
    for (std::uint8_t c : input) {
        switch (state_) {
        case State::data:
            if (c == iac) {
                state_ = State::command;
                break;
            }
            // A client in line mode ends lines with CR LF or CR NUL; the guest wants the CR alone.
            if (!(after_cr_ && (c == 0 || c == '\n'))) data.push_back(c);
            after_cr_ = c == '\r';
            break;
        case State::command:
            state_ = State::data;
            if (c == iac)
                data.push_back(iac);
            else if (c >= will && c <= dont)
                state_ = State::option;
            else if (c == sb)
                state_ = State::subnegotiation;
            else if (c == brk || c == ip)
                ++breaks;
            break;
        case State::option: state_ = State::data; break;
        case State::subnegotiation:
            if (c == iac) state_ = State::subnegotiation_command;
            break;
        case State::subnegotiation_command: state_ = c == se ? State::data : State::subnegotiation; break;
        }
    }
    return data;
}

} // namespace vmm::ui
