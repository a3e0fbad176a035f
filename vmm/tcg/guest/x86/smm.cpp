#include "vmm/tcg/guest/x86/smm.h"

#include "vmm/base/endian.h"
#include "vmm/tcg/guest/x86/system.h"

#include <algorithm>
#include <array>

namespace vmm::tcg::x86 {

namespace {

constexpr std::uint64_t handler_offset = 0x8000, area_offset = 0xfe00;
constexpr std::uint32_t revision = 0x20064; // AMD's 64-bit layout; SMBASE can be moved, I/O cannot be restarted

// Offsets in the area (APM vol. 2 table 10-1, less 0xfe00).
namespace at {
constexpr unsigned gdtr = 0x060, ldtr = 0x070, idtr = 0x080, tr = 0x090, auto_halt = 0x0c9, nmi_mask = 0x0ca,
                   efer = 0x0d0, revision = 0x0fc, smbase = 0x100, cr4 = 0x148, cr3 = 0x150, cr0 = 0x158, dr7 = 0x160,
                   dr6 = 0x168, rflags = 0x170, rip = 0x178, r15 = 0x180, rdi = 0x1c0, rsi = 0x1c8, rbp = 0x1d0,
                   rsp = 0x1d8, rbx = 0x1e0, rdx = 0x1e8, rcx = 0x1f0, rax = 0x1f8;
} // namespace at

// Where each general register lies, by its number.
constexpr unsigned gpr_offset(unsigned r) {
    constexpr unsigned first[] = {at::rax, at::rcx, at::rdx, at::rbx, at::rsp, at::rbp, at::rsi, at::rdi};
    return r < 8 ? first[r] : at::r15 + 8 * (15 - r);
}
// ES to GS in order from the start, then the system segments.
constexpr unsigned segment_offset(unsigned s) { return s == ldtr ? at::ldtr : s == tr ? at::tr : 16 * s; }

// The state save area as bytes.
class Area {
public:
    template <class T> void put(unsigned offset, T value) { store_le<T>(&bytes[offset], value); }
    template <class T> T get(unsigned offset) const { return load_le<T>(&bytes[offset]); }
    void put(unsigned offset, Segment const& s) {
        put<std::uint16_t>(offset, s.selector);
        put<std::uint16_t>(offset + 2, s.attributes);
        put<std::uint32_t>(offset + 4, s.limit);
        put<std::uint64_t>(offset + 8, s.base);
    }
    Segment segment(unsigned offset) const {
        return {.base = get<std::uint64_t>(offset + 8),
                .limit = get<std::uint32_t>(offset + 4),
                .attributes = std::uint16_t(get<std::uint16_t>(offset + 2) & 0xf0ff),
                .selector = get<std::uint16_t>(offset)};
    }
    void put(unsigned offset, TableRegister const& t) {
        put<std::uint16_t>(offset + 4, t.limit);
        put<std::uint64_t>(offset + 8, t.base);
    }
    TableRegister table(unsigned offset) const {
        return {.base = get<std::uint64_t>(offset + 8), .limit = get<std::uint16_t>(offset + 4)};
    }
    std::array<std::uint8_t, 512> bytes{};
};

// The area in guest memory, as SMM sees it; null when there is no RAM, which loses the state as on real machines.
std::uint8_t* area_in_memory(X86Context& c, std::uint64_t smbase, bool write) {
    std::uint8_t* host = c.bus->memory().ram_pointer(smbase + area_offset, sizeof(Area::bytes), write);
    if (!host) c.log->guest_error("SMM: the state save area at {:#x} is not RAM", smbase + area_offset);
    return host;
}

void save(X86Context& c, State const& s) {
    Area area;
    for (unsigned i = 0; i < seg_count; ++i) area.put(segment_offset(i), s.seg[i]);
    area.put(at::gdtr, s.gdtr);
    area.put(at::idtr, s.idtr);
    area.put<std::uint8_t>(at::auto_halt, s.activity == Activity::halted);
    area.put<std::uint8_t>(at::nmi_mask, s.nmi_blocked);
    area.put<std::uint64_t>(at::efer, s.efer);
    area.put<std::uint32_t>(at::revision, revision);
    area.put<std::uint32_t>(at::smbase, std::uint32_t(s.smbase));
    area.put<std::uint64_t>(at::cr4, s.cr4);
    area.put<std::uint64_t>(at::cr3, s.cr3);
    area.put<std::uint64_t>(at::cr0, s.cr0);
    area.put<std::uint64_t>(at::dr7, s.dr7);
    area.put<std::uint64_t>(at::dr6, s.dr6);
    area.put<std::uint64_t>(at::rflags, s.rflags);
    area.put<std::uint64_t>(at::rip, s.rip);
    for (unsigned i = 0; i < s.gpr.size(); ++i) area.put<std::uint64_t>(gpr_offset(i), s.gpr[i]);
    if (std::uint8_t* host = area_in_memory(c, s.smbase, true)) {
        std::copy(area.bytes.begin(), area.bytes.end(), host);
        c.bus->memory().ram_written(s.smbase + area_offset, area.bytes.size());
    }
}

// Whether RSM may load these registers (SDM vol. 3 32.10.1).
bool possible(X86Context const& c, State const& s) {
    bool pe = s.cr0 & cr0::pe, pg = s.cr0 & cr0::pg, nw = s.cr0 & cr0::nw, cd = s.cr0 & cr0::cd;
    if (s.cr0 >> 32 || (pg && !pe) || (nw && !cd)) return false;
    if (s.cr4 & ~cr4_allowed(*c.model)) return false;
    bool lma = s.efer & efer::lma, lme = s.efer & efer::lme;
    if (lma != (lme && pg) || (lma && !(s.cr4 & cr4::pae))) return false;
    if ((s.cr4 & cr4::pcide) && !lma) return false;
    return s.long_mode() ? is_canonical(s, s.rip) || !s.code64() : true;
}

} // namespace

void enter_smm(X86Context& c) {
    State& s = c.state;
    s.rflags = c.rflags();
    c.bus->set_smm(true);
    save(c, s);
    s.in_smm = true;
    s.smi_pending = false;
    s.nmi_blocked = true;
    s.activity = Activity::running;
    s.interrupt_shadow = s.debug_shadow = false;
    s.rflags = flag::one;
    s.rip = handler_offset;
    s.cr0 &= ~(cr0::pe | cr0::em | cr0::ts | cr0::pg);
    s.cr4 = 0;
    s.efer = 0;
    s.dr7 = 0x400;
    constexpr std::uint16_t data = attr::present | attr::s | attr::writable | attr::accessed;
    for (unsigned i = es; i <= gs; ++i)
        s.seg[i] = {.base = 0, .limit = 0xffffffff, .attributes = data | attr::g, .selector = 0};
    s.seg[cs].base = s.smbase;
    s.seg[cs].selector = std::uint16_t(s.smbase >> 4);
    c.engine.exit_request.store(1, std::memory_order_relaxed); // listeners of the memory now seen may have asked too
    state_replaced(c);
}

void leave_smm(X86Context& c) {
    State& s = c.state;
    Area area;
    std::uint8_t* host = area_in_memory(c, s.smbase, false);
    if (host) std::copy(host, host + area.bytes.size(), area.bytes.begin());
    State now = s;
    for (unsigned i = 0; i < seg_count; ++i) now.seg[i] = area.segment(segment_offset(i));
    now.gdtr = area.table(at::gdtr);
    now.idtr = area.table(at::idtr);
    now.activity = area.get<std::uint8_t>(at::auto_halt) & 1 ? Activity::halted : Activity::running;
    now.nmi_blocked = area.get<std::uint8_t>(at::nmi_mask) & 1;
    now.efer = area.get<std::uint64_t>(at::efer);
    now.smbase = area.get<std::uint32_t>(at::smbase);
    now.cr4 = area.get<std::uint64_t>(at::cr4);
    now.cr3 = area.get<std::uint64_t>(at::cr3);
    now.cr0 = area.get<std::uint64_t>(at::cr0) | cr0::et;
    now.dr7 = area.get<std::uint32_t>(at::dr7) | 0x400;
    now.dr6 = (area.get<std::uint32_t>(at::dr6) & 0xe00f) | 0xffff0ff0;
    now.rflags = (area.get<std::uint64_t>(at::rflags) & 0x3f7fd5) | flag::one;
    now.rip = area.get<std::uint64_t>(at::rip);
    for (unsigned i = 0; i < now.gpr.size(); ++i) now.gpr[i] = area.get<std::uint64_t>(gpr_offset(i));
    now.in_smm = false;
    c.engine.exit_request.store(1, std::memory_order_relaxed); // what was held back may come now
    if (!host || area.get<std::uint32_t>(at::revision) != revision || !possible(c, now)) {
        c.log->guest_error("RSM: the saved state cannot be loaded");
        s.activity = Activity::shutdown;
        return;
    }
    c.bus->set_smm(false);
    s = now;
    state_replaced(c);
}

} // namespace vmm::tcg::x86
