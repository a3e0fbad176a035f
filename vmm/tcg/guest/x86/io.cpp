// Port access with IOPL and the TSS's permission bitmap (SDM vol. 1 18.5).
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/system.h"

namespace vmm::tcg::x86 {

namespace {

bool port_allowed(X86Context& c, unsigned port, unsigned size) {
    State const& s = c.state;
    if (!s.protected_mode() || (!s.v8086() && current_cpl(s) <= iopl(s))) return true;
    Segment const& task = s.seg[tr];
    bool tss32 = !task.unusable() && (task.attributes & 8);
    std::uint16_t map, bits;
    if (!tss32 || task.limit < 103) return raise_gp(c), false;
    if (!c.mmu->load_system(task.base + 102, map)) return false;
    std::uint32_t at = map + port / 8;
    if (at + 1 > task.limit) return raise_gp(c), false;
    if (!c.mmu->load_system(task.base + at, bits)) return false;
    if (bits >> (port & 7) & ((1u << size) - 1)) return raise_gp(c), false;
    return true;
}

// I/O breakpoints (CR4.DE): hits trap after the instruction.
void check_io_breakpoints(X86Context& c, unsigned port, unsigned size) {
    State const& s = c.state;
    if (!(s.dr7 & 0xff) || !(s.cr4 & cr4::de)) return;
    static constexpr unsigned lengths[] = {1, 2, 8, 4};
    for (unsigned i = 0; i < 4; ++i) {
        unsigned control = unsigned(s.dr7 >> (16 + 4 * i)) & 15;
        if (!(s.dr7 >> (2 * i) & 3) || (control & 3) != 2) continue;
        std::uint64_t length = lengths[control >> 2], first = s.dr[i] & ~(length - 1);
        if (port < first + length && port + size > first) c.pending_debug |= std::uint64_t(1) << i;
    }
}

} // namespace

namespace helper {

std::uint64_t check_port(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    if (port_allowed(c, unsigned(a) & 0xffff, unsigned(b))) check_io_breakpoints(c, unsigned(a) & 0xffff, unsigned(b));
    return 0;
}

std::uint64_t port_in(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    check_port(c, a, b, 0);
    if (c.faulted()) return 0;
    std::uint64_t v = c.bus->port_read(std::uint16_t(a), unsigned(b));
    c.mmu->service_requests();
    return v;
}

std::uint64_t port_out(X86Context& c, std::uint64_t a, std::uint64_t b, std::uint64_t d) {
    check_port(c, a, b, 0);
    if (c.faulted()) return 0;
    c.bus->port_write(std::uint16_t(a), unsigned(b), std::uint32_t(d & (b == 4 ? 0xffffffff : (1u << 8 * b) - 1)));
    c.mmu->service_requests();
    return 0;
}

} // namespace helper
} // namespace vmm::tcg::x86
