// INS and OUTS, repeated or not: element by element, each port access is an event.
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/string_run.h"

namespace vmm::tcg::x86 {
namespace {

template <class T> void input_strings(StringRun& s) {
    std::uint16_t const port = std::uint16_t(s.c.state.gpr[rdx]);
    helper::check_port(s.c, port, sizeof(T), 0);
    while (!s.c.faulted() && s.remaining()) {
        std::uint64_t const to = s.linear(es, rdi);
        if (!s.check(es, rdi, true)) return;
        // The store must not fault after the port was read.
        s.c.engine.memory->rmw_pointer(s.c.engine, to, sizeof(T));
        if (s.c.faulted()) return;
        T const value = T(s.c.bus->port_read(port, sizeof(T)));
        if (!store(s.c, to, value)) return;
        s.advance(rdi, 1);
        s.count_down(1);
        if (!s.proceed()) return;
    }
}

template <class T> void output_strings(StringRun& s) {
    std::uint16_t const port = std::uint16_t(s.c.state.gpr[rdx]);
    helper::check_port(s.c, port, sizeof(T), 0);
    while (!s.c.faulted() && s.remaining()) {
        T value;
        if (!s.check(s.source_segment(), rsi, false)) return;
        if (!load(s.c, s.linear(s.source_segment(), rsi), value)) return;
        s.c.bus->port_write(port, sizeof(T), std::uint32_t(value));
        s.advance(rsi, 1);
        s.count_down(1);
        if (!s.proceed()) return;
    }
}

} // namespace

namespace helper {

std::uint64_t rep_ins(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    return by_element(a, [&]<class T>(T) { input_strings<T>(s); });
}
std::uint64_t rep_outs(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    StringRun s(c, a, b);
    return by_element(a, [&]<class T>(T) { output_strings<T>(s); });
}

} // namespace helper
} // namespace vmm::tcg::x86
