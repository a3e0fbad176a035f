// x87 instructions: stack, tags, exceptions and pointers around the arithmetic of x87_host.h (SDM vol. 1 ch. 8).
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/x87_unit.h"

#include <utility>

namespace vmm::tcg::x86 {

namespace {

// DC and DE name the subtractions and divisions the other way round: their destination is ST(i).
unsigned reversed(unsigned reg) { return reg >= 4 ? reg ^ 1 : reg; }

void compare_register(X87Unit& u, X87Op op, unsigned i, unsigned pops) {
    if (u.empty(0) || u.empty(i)) {
        bool masked = u.underflow();
        u.set_conditions(fsw::c0 | fsw::c2 | fsw::c3);
        if (masked) u.pop(pops);
        return;
    }
    u.compare(op, i);
    if (u.completed()) u.pop(pops);
}

// FCOMI and relatives: ZF, PF, CF; the other flags are cleared.
void compare_flags(X86Context& c, X87Unit& u, X87Op op, unsigned i, unsigned pops) {
    std::uint64_t flags = flag::zf | flag::pf | flag::cf;
    if (u.empty(0) || u.empty(i)) {
        u.underflow();
    } else {
        std::uint16_t conditions = u.run_only(op, i);
        flags = (conditions & fsw::c0 ? flag::cf : 0) | (conditions & fsw::c2 ? flag::pf : 0) |
                (conditions & fsw::c3 ? flag::zf : 0);
    }
    set_cc_raw(c.engine, flags);
    if (u.completed()) u.pop(pops);
}

// FCMOVcc; bit 0 of group: DB (negated).
void conditional_move(X86Context& c, X87Unit& u, unsigned reg, unsigned i, bool negated) {
    static constexpr std::uint64_t masks[4] = {flag::cf, flag::zf, flag::cf | flag::zf, flag::pf};
    if (u.empty(0) || u.empty(i)) {
        if (u.underflow()) u.write(0, X87Unit::indefinite);
        return;
    }
    bool holds = (c.rflags() & masks[reg]) != 0;
    if (holds != negated) u.write(0, u.read(i));
}

void exchange(X87Unit& u, unsigned i) {
    if (u.empty(0) || u.empty(i)) {
        if (!u.underflow()) return;
        if (u.empty(0)) u.write(0, X87Unit::indefinite);
        if (u.empty(i)) u.write(i, X87Unit::indefinite);
    }
    auto a = u.read(0), b = u.read(i);
    u.write(0, b);
    u.write(i, a);
    u.clear_c1();
}

void store_register(X87Unit& u, unsigned i, bool pops) {
    if (u.empty(0)) {
        if (!u.underflow()) return;
        u.write(i, X87Unit::indefinite);
    } else {
        u.write(i, u.read(0));
        u.clear_c1();
    }
    if (pops) u.pop(1);
}

// FSTPNCE: FSTP that has no stack underflow; an empty register is not copied.
void store_quietly(X87Unit& u, unsigned i) {
    if (!u.empty(0)) u.write(i, u.read(0));
    u.clear_c1();
    u.pop(1);
}

void change_sign(X87Unit& u, bool absolute) {
    if (u.empty(0)) {
        if (u.underflow()) u.write(0, X87Unit::indefinite);
        return;
    }
    auto r = u.read(0);
    r.sign_exponent = absolute ? r.sign_exponent & 0x7fff : r.sign_exponent ^ 0x8000;
    u.write(0, r);
    u.clear_c1();
}

// D9 E4..FF.
void d9_functions(X87Unit& u, unsigned modrm) {
    static constexpr X87Op constants[7] = {X87Op::ld1,   X87Op::ldl2t, X87Op::ldl2e, X87Op::ldpi,
                                           X87Op::ldlg2, X87Op::ldln2, X87Op::ldz};
    switch (modrm) {
    case 0xe0: change_sign(u, false); break;
    case 0xe1: change_sign(u, true); break;
    case 0xe4: u.test(); break;
    case 0xe5: u.examine(); break;
    case 0xf0: u.unary(X87Op::f2xm1); break;
    case 0xf1: u.binary_pop(X87Op::yl2x); break;
    case 0xf2: u.unary_push(X87Op::ptan); break;
    case 0xf3: u.binary_pop(X87Op::patan); break;
    case 0xf4: u.unary_push(X87Op::xtract); break;
    case 0xf5: u.remainder(X87Op::prem1); break;
    case 0xf6: u.move_top(-1); break;
    case 0xf7: u.move_top(1); break;
    case 0xf8: u.remainder(X87Op::prem); break;
    case 0xf9: u.binary_pop(X87Op::yl2xp1); break;
    case 0xfa: u.unary(X87Op::sqrt); break;
    case 0xfb: u.unary_push(X87Op::sincos); break;
    case 0xfc: u.unary(X87Op::rndint); break;
    case 0xfd: u.scale(); break;
    case 0xfe: u.unary(X87Op::sin); break;
    case 0xff: u.unary(X87Op::cos); break;
    default:
        if (modrm >= 0xe8 && modrm <= 0xee) u.load(constants[modrm - 0xe8]);
        break;
    }
}

void arithmetic_register(X87Unit& u, unsigned reg, unsigned i, bool to_i, unsigned pops) {
    if (reg == 2 || reg == 3) return compare_register(u, X87Op::com, i, to_i && pops ? 1 + (reg == 3) : reg == 3);
    if (to_i)
        u.arithmetic(X87Op(reversed(reg)), i, 0, pops);
    else
        u.arithmetic(X87Op(reg), 0, i, 0);
}

void group_d9(X87Unit& u, unsigned modrm, unsigned i) {
    if (modrm < 0xc8)
        u.push_copy(i);
    else if (modrm < 0xd0)
        exchange(u, i);
    else if (modrm >= 0xd8 && modrm < 0xe0)
        store_quietly(u, i);
    else
        d9_functions(u, modrm);
}
void group_db(X86Context& c, X87Unit& u, unsigned reg, unsigned i) {
    if (reg < 4)
        conditional_move(c, u, reg, i, true);
    else if (reg == 5)
        compare_flags(c, u, X87Op::ucom, i, 0);
    else if (reg == 6)
        compare_flags(c, u, X87Op::com, i, 0);
}
void group_dd(X87Unit& u, unsigned reg, unsigned i) {
    switch (reg) {
    case 0:
        u.free(i);
        u.clear_c1();
        break;
    case 1: exchange(u, i); break;
    case 2: store_register(u, i, false); break;
    case 3: store_register(u, i, true); break;
    case 4: compare_register(u, X87Op::ucom, i, 0); break;
    case 5: compare_register(u, X87Op::ucom, i, 1); break;
    default: break;
    }
}
void group_df(X86Context& c, X87Unit& u, unsigned reg, unsigned i) {
    switch (reg) {
    case 0:
        u.free(i);
        u.clear_c1();
        u.pop(1);
        break;
    case 1: exchange(u, i); break;
    case 2:
    case 3: store_register(u, i, true); break;
    case 5: compare_flags(c, u, X87Op::ucom, i, 1); break;
    case 6: compare_flags(c, u, X87Op::com, i, 1); break;
    default: break;
    }
}

} // namespace

namespace helper {

std::uint64_t x87_wait(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    x87_check_pending(c);
    return 0;
}

std::uint64_t x87_register(X86Context& c, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if (!x87_check_pending(c)) return 0;
    X87Unit u(c, a);
    unsigned modrm = a & 0xff, reg = modrm >> 3 & 7, i = modrm & 7;
    switch (a >> 8 & 7) {
    case 0: arithmetic_register(u, reg, i, false, 0); break;
    case 1: group_d9(u, modrm, i); break;
    case 2:
        if (reg < 4)
            conditional_move(c, u, reg, i, false);
        else
            compare_register(u, X87Op::ucom, 1, 2); // FUCOMPP
        break;
    case 3: group_db(c, u, reg, i); break;
    case 4: arithmetic_register(u, reg, i, true, 0); break;
    case 5: group_dd(u, reg, i); break;
    case 6: arithmetic_register(u, reg, i, true, 1); break;
    default: group_df(c, u, reg, i); break;
    }
    return 0;
}

// D8-DF with a 16, 32 or 64-bit source.
std::uint64_t x87_source(X86Context& c, std::uint64_t a, std::uint64_t value, std::uint64_t offset) {
    if (!x87_check_pending(c)) return 0;
    X87Unit u(c, a);
    u.set_data_pointer(offset);
    u.set_memory(value);
    unsigned reg = a >> 3 & 7;
    auto group = [&](X87Op first) { u.arithmetic_memory(X87Op(unsigned(first) + reg)); };
    switch (a >> 8 & 7) {
    case 0: group(X87Op::add_f32); break;
    case 1: u.load(X87Op::ld_f32); break;
    case 2: group(X87Op::add_i32); break;
    case 3: u.load(X87Op::ld_i32); break;
    case 4: group(X87Op::add_f64); break;
    case 5: u.load(X87Op::ld_f64); break;
    case 6: group(X87Op::add_i16); break;
    default: u.load(reg == 5 ? X87Op::ld_i64 : X87Op::ld_i16); break;
    }
    return 0;
}

std::uint64_t fldcw(X86Context& c, std::uint64_t value, std::uint64_t, std::uint64_t) {
    c.state.x87.fcw = std::uint16_t((value & fcw_writable) | fcw_fixed);
    update_summary(c.state.x87);
    return 0;
}
std::uint64_t fninit(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    x87_reset(c);
    return 0;
}
std::uint64_t fnclex(X86Context& c, std::uint64_t, std::uint64_t, std::uint64_t) {
    X87& x = c.state.x87;
    if (x.fsw & fsw::es && !(c.state.cr0 & cr0::ne)) c.bus->set_ferr(false);
    x.fsw &= std::uint16_t(~(fsw::exceptions | fsw::sf | fsw::es | fsw::busy));
    return 0;
}

} // namespace helper

} // namespace vmm::tcg::x86
