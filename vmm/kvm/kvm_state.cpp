#include "vmm/kvm/kvm_state.h"

#include <cpuid.h>

#include <algorithm>
#include <cstring>

namespace vmm::kvm {

namespace {

namespace attr = x86::attr;

kvm_segment to_kvm(x86::Segment const& s) {
    kvm_segment k{};
    k.base = s.base, k.limit = s.limit, k.selector = s.selector;
    k.type = s.attributes & attr::type_mask;
    k.s = (s.attributes & attr::s) != 0;
    k.dpl = s.dpl() & 3;
    k.present = (s.attributes & attr::present) != 0;
    k.avl = (s.attributes & attr::avl) != 0;
    k.l = (s.attributes & attr::l) != 0;
    k.db = (s.attributes & attr::db) != 0;
    k.g = (s.attributes & attr::g) != 0;
    k.unusable = !k.present;
    return k;
}

x86::Segment from_kvm(kvm_segment const& k) {
    x86::Segment s;
    s.base = k.base, s.limit = k.limit, s.selector = k.selector;
    if (k.unusable) return s;
    s.attributes = std::uint16_t((k.type & 15) | (k.s ? attr::s : 0) | (k.dpl & 3) << attr::dpl_shift |
                                 (k.present ? attr::present : 0) | (k.avl ? attr::avl : 0) | (k.l ? attr::l : 0) |
                                 (k.db ? attr::db : 0) | (k.g ? attr::g : 0));
    return s;
}

// The FXSAVE area that begins every XSAVE image (SDM vol. 1 table 10-2, 64-bit form).
struct Legacy {
    std::uint16_t fcw, fsw;
    std::uint8_t tags, reserved;
    std::uint16_t fop;
    std::uint64_t fip, fdp;
    std::uint32_t mxcsr, mxcsr_mask;
    std::array<std::array<std::uint64_t, 2>, 8> st;
    std::array<std::array<std::uint64_t, 2>, 16> xmm;
};
static_assert(sizeof(Legacy) == 416);
constexpr std::size_t xstate_bv_offset = 512;

std::uint8_t* bytes(abi::Xsave& x) { return reinterpret_cast<std::uint8_t*>(x.region); }
std::uint8_t const* bytes(abi::Xsave const& x) { return reinterpret_cast<std::uint8_t const*>(x.region); }

enum Component : unsigned { c_x87, c_sse, c_avx, c_opmask = 5, c_zmm_hi256 = 6, c_hi16_zmm = 7, c_pkru = 9 };

// The part of an image that holds `component`, or null when the host does not have it or its place is beyond the image.
std::uint8_t* part(std::uint8_t* image, XsaveLayout const& layout, unsigned component, std::size_t size) {
    if (!(layout.components >> component & 1) || layout.size[component] < size) return nullptr;
    if (layout.offset[component] + size > sizeof(abi::Xsave)) return nullptr;
    return image + layout.offset[component];
}

} // namespace

void to_kvm(x86::State const& s, kvm_regs& r) {
    using enum x86::Gpr;
    r = {};
    r.rax = s.gpr[rax], r.rbx = s.gpr[rbx], r.rcx = s.gpr[rcx], r.rdx = s.gpr[rdx];
    r.rsi = s.gpr[rsi], r.rdi = s.gpr[rdi], r.rsp = s.gpr[rsp], r.rbp = s.gpr[rbp];
    r.r8 = s.gpr[8], r.r9 = s.gpr[9], r.r10 = s.gpr[10], r.r11 = s.gpr[11];
    r.r12 = s.gpr[12], r.r13 = s.gpr[13], r.r14 = s.gpr[14], r.r15 = s.gpr[15];
    r.rip = s.rip, r.rflags = s.rflags | x86::flag::one;
}

void from_kvm(kvm_regs const& r, x86::State& s) {
    s.gpr = {r.rax, r.rcx, r.rdx, r.rbx, r.rsp, r.rbp, r.rsi, r.rdi,
             r.r8,  r.r9,  r.r10, r.r11, r.r12, r.r13, r.r14, r.r15};
    s.rip = r.rip, s.rflags = r.rflags;
}

void to_kvm(x86::State const& s, kvm_sregs& r) {
    r.es = to_kvm(s.seg[x86::es]), r.cs = to_kvm(s.seg[x86::cs]), r.ss = to_kvm(s.seg[x86::ss]);
    r.ds = to_kvm(s.seg[x86::ds]), r.fs = to_kvm(s.seg[x86::fs]), r.gs = to_kvm(s.seg[x86::gs]);
    r.ldt = to_kvm(s.seg[x86::ldtr]), r.tr = to_kvm(s.seg[x86::tr]);
    // The CPU runs guests with a busy TSS only (SDM vol. 3 26.3.1.2); an idle one behaves the same.
    if (r.tr.type == 9) r.tr.type = 11;
    if (r.tr.type == 1) r.tr.type = 3;
    r.gdt.base = s.gdtr.base, r.gdt.limit = s.gdtr.limit;
    r.idt.base = s.idtr.base, r.idt.limit = s.idtr.limit;
    r.cr0 = s.cr0, r.cr2 = s.cr2, r.cr3 = s.cr3, r.cr4 = s.cr4, r.efer = s.efer;
    std::memset(r.interrupt_bitmap, 0, sizeof r.interrupt_bitmap);
}

void from_kvm(kvm_sregs const& r, x86::State& s) {
    s.seg[x86::es] = from_kvm(r.es), s.seg[x86::cs] = from_kvm(r.cs), s.seg[x86::ss] = from_kvm(r.ss);
    s.seg[x86::ds] = from_kvm(r.ds), s.seg[x86::fs] = from_kvm(r.fs), s.seg[x86::gs] = from_kvm(r.gs);
    s.seg[x86::ldtr] = from_kvm(r.ldt), s.seg[x86::tr] = from_kvm(r.tr);
    s.gdtr = {r.gdt.base, r.gdt.limit};
    s.idtr = {r.idt.base, r.idt.limit};
    s.cr0 = r.cr0, s.cr2 = r.cr2, s.cr3 = r.cr3, s.cr4 = r.cr4, s.efer = r.efer;
}

void to_kvm(x86::State const& s, kvm_debugregs& r) {
    r = {};
    for (unsigned i = 0; i < 4; ++i) r.db[i] = s.dr[i];
    r.dr6 = s.dr6, r.dr7 = s.dr7;
}

void from_kvm(kvm_debugregs const& r, x86::State& s) {
    for (unsigned i = 0; i < 4; ++i) s.dr[i] = r.db[i];
    s.dr6 = r.dr6, s.dr7 = r.dr7;
}

void to_kvm(x86::State const& s, kvm_vcpu_events& e, std::uint32_t offered) {
    e = {};
    // Vectors below 32 are exceptions, but for a software INT and the NMI (2), which travels as nmi.injected.
    bool exception = s.event_pending && s.event_vector < 32 && !s.event_is_software && s.event_vector != x86::vec::nmi;
    if (exception) {
        e.exception.injected = 1, e.exception.nr = s.event_vector;
        e.exception.has_error_code = s.event_has_error, e.exception.error_code = s.event_error;
    } else if (s.event_pending && s.event_vector == x86::vec::nmi && !s.event_is_software) {
        e.nmi.injected = 1;
    } else if (s.event_pending) {
        e.interrupt.injected = 1, e.interrupt.nr = s.event_vector, e.interrupt.soft = s.event_is_software;
    }
    if (s.interrupt_shadow) e.interrupt.shadow = s.debug_shadow ? KVM_X86_SHADOW_INT_MOV_SS : KVM_X86_SHADOW_INT_STI;
    e.nmi.pending = s.nmi_pending, e.nmi.masked = s.nmi_blocked;
    e.sipi_vector = s.sipi_vector;
    e.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR | KVM_VCPUEVENT_VALID_SHADOW;
    e.flags |= offered; // triple_fault.pending stays 0: shutdown is an activity
    if (offered & KVM_VCPUEVENT_VALID_SMM) {
        e.smi.smm = s.in_smm, e.smi.pending = s.smi_pending, e.smi.smm_inside_nmi = s.in_smm && s.nmi_blocked;
        e.smi.latched_init = s.init_pending;
    }
}

void from_kvm(kvm_vcpu_events const& e, x86::State& s) {
    s.event_pending = s.event_has_error = s.event_is_software = false;
    s.event_vector = 0, s.event_error = 0;
    if (e.exception.injected || e.exception.pending) {
        s.event_pending = true, s.event_vector = e.exception.nr;
        s.event_has_error = e.exception.has_error_code,
        s.event_error = e.exception.has_error_code ? e.exception.error_code : 0;
    } else if (e.nmi.injected) {
        s.event_pending = true, s.event_vector = x86::vec::nmi;
    } else if (e.interrupt.injected) {
        s.event_pending = true, s.event_vector = e.interrupt.nr, s.event_is_software = e.interrupt.soft;
    }
    s.interrupt_shadow = e.interrupt.shadow != 0;
    s.debug_shadow = e.interrupt.shadow & KVM_X86_SHADOW_INT_MOV_SS;
    s.nmi_pending = e.nmi.pending, s.nmi_blocked = e.nmi.masked;
    if (e.flags & KVM_VCPUEVENT_VALID_SMM) s.in_smm = e.smi.smm, s.smi_pending = e.smi.pending;
    if ((e.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) && e.triple_fault.pending) s.activity = x86::Activity::shutdown;
}

void to_kvm(x86::State const& s, kvm_xcrs& x) {
    x = {};
    x.nr_xcrs = 1;
    x.xcrs[0].xcr = 0;
    x.xcrs[0].value = s.xcr0;
}

void from_kvm(kvm_xcrs const& x, x86::State& s) {
    for (unsigned i = 0; i < std::min<unsigned>(x.nr_xcrs, KVM_MAX_XCRS); ++i)
        if (x.xcrs[i].xcr == 0) s.xcr0 = x.xcrs[i].value;
}

XsaveLayout XsaveLayout::of_host() {
    XsaveLayout layout;
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d)) return layout;
    layout.components = (std::uint64_t(d) << 32 | a) | 3;
    for (unsigned i = 2; i < layout.offset.size(); ++i)
        if ((layout.components >> i & 1) && __get_cpuid_count(0xd, i, &a, &b, &c, &d))
            layout.size[i] = a, layout.offset[i] = b;
    return layout;
}

void to_kvm(x86::State const& s, abi::Xsave& x, XsaveLayout const& layout) {
    std::memset(&x, 0, sizeof x);
    std::uint8_t* image = bytes(x);
    Legacy legacy{};
    legacy.fcw = s.x87.fcw, legacy.fsw = s.x87.fsw, legacy.tags = s.x87.tags, legacy.fop = s.x87.fop;
    legacy.fip = s.x87.fip, legacy.fdp = s.x87.fdp;
    legacy.mxcsr = s.mxcsr;
    unsigned top = s.x87.fsw >> 11 & 7;
    for (unsigned i = 0; i < 8; ++i) {
        x86::X87::Register const& r = s.x87.r[(top + i) & 7];
        legacy.st[i] = {r.mantissa, r.sign_exponent};
    }
    for (unsigned i = 0; i < 16; ++i) legacy.xmm[i] = {s.ymm[i][0], s.ymm[i][1]};
    std::memcpy(image, &legacy, sizeof legacy);
    std::uint64_t present = 3;
    auto put = [&](unsigned component, auto const& fill, std::size_t size) {
        if (std::uint8_t* to = part(image, layout, component, size)) fill(to), present |= std::uint64_t(1) << component;
    };
    put(
        c_avx,
        [&](std::uint8_t* to) {
            for (unsigned i = 0; i < 16; ++i) std::memcpy(to + 16 * i, &s.ymm[i][2], 16);
        },
        256);
    put(
        c_opmask, [&](std::uint8_t* to) { std::memcpy(to, &s.avx512.k, 64); }, 64);
    put(
        c_zmm_hi256, [&](std::uint8_t* to) { std::memcpy(to, &s.avx512.zmm_high, 512); }, 512);
    put(
        c_hi16_zmm, [&](std::uint8_t* to) { std::memcpy(to, &s.avx512.hi16, 1024); }, 1024);
    put(
        c_pkru, [&](std::uint8_t* to) { std::memcpy(to, &s.pkru, 4); }, 4);
    std::memcpy(image + xstate_bv_offset, &present, 8);
}

void from_kvm(abi::Xsave const& x, x86::State& s, XsaveLayout const& layout) {
    std::uint8_t const* image = bytes(x);
    Legacy legacy;
    std::memcpy(&legacy, image, sizeof legacy);
    std::uint64_t present;
    std::memcpy(&present, image + xstate_bv_offset, 8);
    // A component that is not present is in its initial state (SDM vol. 1 13.6).
    s.x87 = {};
    if (present >> c_x87 & 1) {
        s.x87.fcw = legacy.fcw, s.x87.fsw = legacy.fsw, s.x87.tags = legacy.tags, s.x87.fop = legacy.fop;
        s.x87.fip = legacy.fip, s.x87.fdp = legacy.fdp;
        unsigned top = legacy.fsw >> 11 & 7;
        for (unsigned i = 0; i < 8; ++i) {
            x86::X87::Register& r = s.x87.r[(top + i) & 7];
            r.mantissa = legacy.st[i][0], r.sign_exponent = std::uint16_t(legacy.st[i][1]);
        }
    }
    s.mxcsr = legacy.mxcsr;
    s.ymm = {};
    if (present >> c_sse & 1)
        for (unsigned i = 0; i < 16; ++i) s.ymm[i][0] = legacy.xmm[i][0], s.ymm[i][1] = legacy.xmm[i][1];
    s.avx512 = {};
    s.pkru = 0;
    auto get = [&](unsigned component, auto const& take, std::size_t size) {
        if (!(present >> component & 1)) return;
        if (std::uint8_t* from = part(const_cast<std::uint8_t*>(image), layout, component, size)) take(from);
    };
    get(
        c_avx,
        [&](std::uint8_t* from) {
            for (unsigned i = 0; i < 16; ++i) std::memcpy(&s.ymm[i][2], from + 16 * i, 16);
        },
        256);
    get(
        c_opmask, [&](std::uint8_t* from) { std::memcpy(&s.avx512.k, from, 64); }, 64);
    get(
        c_zmm_hi256, [&](std::uint8_t* from) { std::memcpy(&s.avx512.zmm_high, from, 512); }, 512);
    get(
        c_hi16_zmm, [&](std::uint8_t* from) { std::memcpy(&s.avx512.hi16, from, 1024); }, 1024);
    get(
        c_pkru, [&](std::uint8_t* from) { std::memcpy(&s.pkru, from, 4); }, 4);
}

} // namespace vmm::kvm
