// Emitter: shifts, rotates, bit operations, multiplication and division.
#include "vmm/tcg/x64/emitter.h"
#include "vmm/tcg/x64/slow_paths.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

#define CONTEXT(field) rbp + int(offsetof(EngineContext, field))

void Emitter::shift(Opcode op, Xbyak::Reg const& d, int count) {
    // count < 0: by cl
    auto go = [&](auto by) {
        switch (op) {
        case Opcode::shl: return as_.shl(d, by);
        case Opcode::shr: return as_.shr(d, by);
        case Opcode::sar: return as_.sar(d, by);
        case Opcode::rol: return as_.rol(d, by);
        case Opcode::ror: return as_.ror(d, by);
        case Opcode::rcl: return as_.rcl(d, by);
        default: return as_.rcr(d, by);
        }
    };
    if (count < 0)
        go(cl);
    else
        go(count);
}

// After a shift by a count only known at run time, whose flags stay as they were when it is 0.
void Emitter::finish_variable(std::uint32_t i, int count_reg, FlagState before) {
    if (!flags_wanted(i)) return define_flags(i);
    if (before.rflags) return define_flags(i);
    // The old flags are in memory: the new ones go there if there are any.
    as_.pushfq();
    as_.pop(frame_at(Type::i64, frame::image));
    as_.test(as_.r8b(count_reg), inst(i).type == Type::i64 ? 63 : 31);
    Fixup zero = as_.jump_if(Cond::e);
    as_.push(frame_at(Type::i64, frame::image));
    as_.pop(qword[CONTEXT(cc_src)]);
    as_.mov(dword[CONTEXT(cc_op)], cc_op(CcKind::raw, 3));
    as_.bind(zero);
    flags_ = {};
}

// dst := dst op count (with `other` for double shifts), which cl stands for meanwhile.
void Emitter::emit_variable(std::uint32_t i, int dst, int other, int count) {
    Inst const& n = inst(i);
    bool twice = n.op == Opcode::shld || n.op == Opcode::shrd;
    auto x = as_.reg(n.type, dst);
    auto go = [&] {
        if (!twice) return shift(n.op, x, -1);
        auto y = as_.reg(n.type, other);
        if (n.op == Opcode::shld)
            as_.shld(x, y, cl);
        else
            as_.shrd(x, y, cl);
    };
    FlagState before = flags_;
    if (count == host::rcx) {
        go();
        return finish_variable(i, host::rcx, before);
    }
    as_.mov(frame_at(Type::i64, frame::keep0), rcx);
    as_.mov(ecx, as_.r32(count));
    go();
    as_.mov(rcx, frame_at(Type::i64, frame::keep0));
    finish_variable(i, count, before);
}

void Emitter::emit_shift(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool wanted = flags_wanted(i), simple = n.op == Opcode::shl || n.op == Opcode::shr || n.op == Opcode::sar;
    bool through_carry = n.op == Opcode::rcl || n.op == Opcode::rcr;
    int count = constant_count(block_, n);
    if (count == 0) {
        int d = result_register(i);
        if (!(in_register(n.a) && val(n.a).reg == d && t != Type::i32)) move_to(d, n.a, t);
        return finish_result(i, d);
    }
    if (count > 0) {
        if (through_carry || (!simple && wanted)) need_rflags();
        if (!n.sets_flags || simple) clobber_flags();
        int d = result_register(i);
        if (!(in_register(n.a) && val(n.a).reg == d)) move_to(d, n.a, t);
        shift(n.op, as_.reg(t, d), count);
        finish_result(i, d);
        return define_flags(i, simple && count > 1 ? recipe(Recipe::shifted, t, d) : Recipe{});
    }
    if (simple && !wanted && t >= Type::i32) {
        int c = reg_of(n.b);
        int a = reg_of(n.a);
        int d = result_register(i);
        auto x = as_.reg(t, d), y = as_.reg(t, a), z = as_.reg(t, c);
        auto const &x32 = static_cast<Xbyak::Reg32e const&>(x), &z32 = static_cast<Xbyak::Reg32e const&>(z);
        if (n.op == Opcode::shl)
            as_.shlx(x32, y, z32);
        else if (n.op == Opcode::shr)
            as_.shrx(x32, y, z32);
        else
            as_.sarx(x32, y, z32);
        return finish_result(i, d);
    }
    if (through_carry || (!simple && wanted)) {
        need_rflags();
        if (!n.sets_flags) clobber_flags();
    } else if (wanted) {
        if (!flags_.rflags) need_memory();
    } else {
        clobber_flags();
    }
    int count_reg = reg_of(n.b);
    // Not in rcx, which holds the count, nor where the count lies.
    int d = result_register(i, {host::rcx, count_reg});
    if (!(in_register(n.a) && val(n.a).reg == d)) move_to(d, n.a, t);
    emit_variable(i, d, -1, count_reg);
    finish_result(i, d);
}

void Emitter::emit_double_shift(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool wanted = flags_wanted(i);
    int count = constant_count(block_, n);
    if (count == 0) {
        int d = result_register(i);
        move_to(d, n.a, t);
        return finish_result(i, d);
    }
    if (count < 0 && wanted) {
        if (!flags_.rflags) need_memory();
    } else {
        clobber_flags();
    }
    int b = reg_of(n.b);
    int count_reg = count < 0 ? reg_of(n.c) : -1;
    if (count < 0 && b == host::rcx && count_reg != host::rcx) { // rcx is about to hold the count
        b = take_scratch();
        as_.mov(as_.r64(b), rcx);
    }
    int d = count < 0 ? result_register(i, {b, host::rcx, count_reg}) : result_register(i, {b});
    if (!(in_register(n.a) && val(n.a).reg == d)) move_to(d, n.a, t);
    if (count < 0) {
        emit_variable(i, d, b, count_reg);
        return finish_result(i, d);
    }
    auto x = as_.reg(t, d), y = as_.reg(t, b);
    if (n.op == Opcode::shld)
        as_.shld(x, y, std::uint8_t(count));
    else
        as_.shrd(x, y, std::uint8_t(count));
    finish_result(i, d);
    define_flags(i);
}

void Emitter::emit_mul(std::uint32_t i) {
    Inst const& n = inst(i);
    VMM_ASSERT(n.type != Type::i8);
    clobber_flags();
    ValueId va = n.a, vb = n.b;
    std::int64_t imm;
    if (is_immediate(va, n.type, imm)) std::swap(va, vb);
    int p = pinned_target(i);
    if (is_immediate(vb, n.type, imm)) {
        int a = reg_of(va);
        int d = result_register(i);
        as_.imul(as_.reg(n.type, d), as_.reg(n.type, a), int(imm));
        finish_result(i, d);
        return define_flags(i);
    }
    if (p >= 0 && in_register(vb) && val(vb).reg == p) std::swap(va, vb);
    int b = reg_of(vb);
    int d = b == p && !(in_register(va) && val(va).reg == p) ? result_register(i, {b}) : result_register(i);
    if (!(in_register(va) && val(va).reg == d)) move_to(d, va, n.type);
    as_.imul(as_.reg(n.type, d), as_.reg(n.type, b));
    finish_result(i, d);
    define_flags(i);
}

// Whether both results of instruction i go straight to the pinned rax and rdx, with nothing between to see it. Marks
// the puts as done.
bool Emitter::pair_puts(std::uint32_t i, std::uint32_t& high) {
    std::uint32_t const n = std::uint32_t(block_.insts.size());
    high = i + 1 < n && inst(i + 1).op == Opcode::high && inst(i + 1).a == i ? i + 1 : no_index;
    if (high == no_index || inst(i).type < Type::i32) return false;
    std::uint32_t put_low = no_index, put_high = no_index, widened = no_index, last = high;
    for (std::uint32_t k = high + 1; k < n && k < high + 5 && (put_low == no_index || put_high == no_index); ++k) {
        Inst const& m = inst(k);
        last = k;
        if (m.op == Opcode::zext && plan_.values[k].root != k) continue;
        if (m.op == Opcode::zext && m.a == high && m.type == Type::i64) {
            widened = k;
        } else if (m.op == Opcode::put && m.type == Type::i64 && plan_.values[k].pin >= 0) {
            Pins::Pin const& pin = pins_.pin[unsigned(plan_.values[k].pin)];
            if (m.imm != pin.offset) return false;
            if (root(m.a) == i && pin.host == host::rax && put_low == no_index)
                put_low = k;
            else if ((m.a == high || m.a == widened) && pin.host == host::rdx && put_high == no_index)
                put_high = k;
            else
                return false;
        } else {
            return false;
        }
    }
    if (put_low == no_index || put_high == no_index) return false;
    if (inst(i).type == Type::i32 && (inst(put_low).a == i || widened == no_index)) return false;
    if (plan_.values[i].last_use > last || plan_.values[high].last_use > last) return false;
    if (widened != no_index && plan_.values[widened].last_use > last) return false;
    done_[put_low] = done_[put_high] = 1;
    if (widened != no_index) done_[widened] = 1;
    for (std::uint32_t k : {high, widened})
        if (k != no_index) values_[k] = {.place = Place::pinned, .reg = host::rdx};
    values_[i] = {.place = Place::pinned, .reg = host::rax};
    return true;
}

// The results of a two-word operation are in rax and rdx (bytes: al and ah), the guest's values of those in the two
// registers given.
void Emitter::take_pair(std::uint32_t i, int keep_rax, int keep_rdx) {
    std::uint32_t high;
    if (pair_puts(i, high)) return;
    as_.mov(frame_at(Type::i64, frame::keep0), rax);
    if (inst(i).type != Type::i8) as_.mov(frame_at(Type::i64, frame::buffer), rdx);
    as_.mov(rax, as_.r64(keep_rax));
    as_.mov(rdx, as_.r64(keep_rdx));
    if (plan_.values[i].uses) {
        if (inst(i).type == Type::i64)
            as_.mov(as_.r64(keep_rax), frame_at(Type::i64, frame::keep0));
        else
            as_.mov(as_.r32(keep_rax), frame_at(Type::i32, frame::keep0));
        finish_result(i, keep_rax);
    }
    if (high == no_index || plan_.values[high].uses == 0) return;
    if (inst(i).type == Type::i8)
        as_.movzx(as_.r32(keep_rdx), frame_at(Type::i8, frame::keep0 + 1));
    else
        as_.mov(as_.r64(keep_rdx), frame_at(Type::i64, frame::buffer));
    values_[high] = {.place = Place::scratch, .reg = std::int8_t(keep_rdx)};
    owner(keep_rdx) = ValueId(high);
}

void Emitter::emit_wide_multiply(std::uint32_t i) {
    Inst const& n = inst(i);
    clobber_flags();
    forget_register(host::rax);
    forget_register(host::rdx);
    take(host::r14), take(host::r15);
    ValueId va = n.a, vb = n.b;
    auto is_in = [&](ValueId v, int r) { return val(v).place == Place::pinned && val(v).reg == r; };
    if (is_in(vb, host::rax) && !is_in(va, host::rax)) std::swap(va, vb);
    int b = -1;
    bool memory = in_memory(vb) && inst(root(vb)).type >= n.type;
    if (!memory) b = reg_of(vb);
    as_.mov(r14, rax);
    as_.mov(r15, rdx);
    if (b == host::rax) b = host::r14;
    if (!is_in(va, host::rax)) move_to(host::rax, va, n.type);
    auto multiply = [&](Xbyak::Operand const& by) {
        if (n.op == Opcode::umul2)
            as_.mul(by);
        else
            as_.imul(by);
    };
    if (memory)
        multiply(memory_of(vb, n.type));
    else
        multiply(as_.reg(n.type, b));
    take_pair(i, host::r14, host::r15);
    define_flags(i);
}

// Divisions that could trap on the host, and bytes, go to C++.
void Emitter::emit_divide(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool is_signed = n.op == Opcode::sdiv2;
    clobber_flags();
    forget_register(host::rax);
    forget_register(host::rdx);
    take(host::r14), take(host::r15), take(host::r11);
    FlagState before = flags_;
    move_to(host::r11, n.c, t);
    as_.mov(frame_at(Type::i64, frame::buffer + 16), r11);
    as_.mov(r14, rax);
    as_.mov(r15, rdx);
    // Operands that lie in rax or rdx are read from their copies.
    auto fetch = [&](int to, ValueId v) {
        Value const& x = val(v);
        bool in_pair =
            (x.place == Place::pinned || x.place == Place::high) && (x.reg == host::rax || x.reg == host::rdx);
        if (!in_pair) return move_to(to, v, t);
        int copy = x.reg == host::rax ? host::r14 : host::r15;
        if (x.place == Place::high)
            as_.rorx(as_.r64(to), as_.r64(copy), 8);
        else if (to != x.reg)
            as_.mov(as_.r64(to), as_.r64(copy));
    };
    fetch(host::rax, n.b);
    fetch(host::rdx, n.a);
    Fixup slow[2];
    auto rdx_t = as_.reg(t, host::rdx), r11_t = as_.reg(t, host::r11);
    if (t == Type::i8) {
        slow[0] = as_.jump();
    } else if (!is_signed) {
        as_.cmp(rdx_t, r11_t);
        slow[0] = as_.jump_if(Cond::ae);
        as_.div(r11_t);
    } else {
        as_.lea(as_.reg(at_least_32(t), host::r11), ptr[r11 + 1]);
        as_.cmp(r11_t, 1);
        slow[0] = as_.jump_if(Cond::be);
        as_.mov(r11, rax);
        as_.sar(r11_t, bits_of(t) - 1);
        as_.cmp(r11_t, rdx_t);
        slow[1] = as_.jump_if(Cond::ne);
        as_.idiv(frame_at(t, frame::buffer + 16));
    }
    std::uint8_t* back = as_.here();
    std::int32_t offset = guest_offset_;
    cold_.push_back([=, this] {
        for (Fixup f : slow)
            if (f.field) as_.bind(f);
        as_.mov(frame_at(Type::i64, frame::buffer), rdx);
        as_.mov(frame_at(Type::i64, frame::buffer + 8), rax);
        as_.mov(frame_at(Type::i64, frame::keep1), r15);
        as_.mov(r15d, unsigned(t) | (is_signed ? 4 : 0));
        as_.call_to(thunks_.divide);
        as_.mov(r15, frame_at(Type::i64, frame::keep1));
        as_.mov(rax, frame_at(Type::i64, frame::buffer));
        as_.mov(rdx, frame_at(Type::i64, frame::buffer + 8));
        if (t == Type::i8)
            as_.mov(frame_at(Type::i8, frame::buffer + 1), dl), as_.mov(rax, frame_at(Type::i64, frame::buffer));
        as_.bind(as_.jump_if(Cond::ne), back);
        as_.mov(rax, r14);
        as_.mov(rdx, r15);
        leave_with_fault(before, offset);
    });
    take_pair(i, host::r14, host::r15);
    define_flags(i);
}

void Emitter::emit_scan(std::uint32_t i) {
    Inst const& n = inst(i);
    VMM_ASSERT(n.type != Type::i8);
    clobber_flags();
    int a = reg_of(n.a);
    int d = result_register(i, {a});
    if (!(in_register(n.b) && val(n.b).reg == d && n.type != Type::i32)) move_to(d, n.b, n.type);
    if (n.op == Opcode::bsf)
        as_.bsf(as_.reg(n.type, d), as_.reg(n.type, a));
    else
        as_.bsr(as_.reg(n.type, d), as_.reg(n.type, a));
    finish_result(i, d);
    define_flags(i);
}

void Emitter::emit_count(std::uint32_t i) {
    Inst const& n = inst(i);
    VMM_ASSERT(n.type != Type::i8);
    clobber_flags();
    int a = reg_of(n.a);
    int d = result_register(i);
    auto x = as_.reg(n.type, d), y = as_.reg(n.type, a);
    if (n.op == Opcode::tzcnt)
        as_.tzcnt(x, y);
    else if (n.op == Opcode::lzcnt)
        as_.lzcnt(x, y);
    else
        as_.popcnt(x, y);
    finish_result(i, d);
    define_flags(i);
}

void Emitter::emit_bit_test(std::uint32_t i) {
    Inst const& n = inst(i);
    VMM_ASSERT(n.type != Type::i8);
    if (flags_wanted(i))
        need_rflags();
    else
        clobber_flags();
    std::int64_t imm = 0;
    bool immediate = val(n.b).place == Place::immediate;
    if (immediate) imm = val(n.b).imm & (bits_of(n.type) - 1);
    int b = immediate ? -1 : reg_of(n.b);
    int d;
    if (n.op == Opcode::bt) {
        d = reg_of(n.a);
    } else {
        d = b >= 0 && !(in_register(n.a) && val(n.a).reg == b) ? result_register(i, {b}) : result_register(i);
        if (!(in_register(n.a) && val(n.a).reg == d)) move_to(d, n.a, n.type);
    }
    auto x = as_.reg(n.type, d);
    auto go = [&](auto&& by) {
        switch (n.op) {
        case Opcode::bt: return as_.bt(x, by);
        case Opcode::bts: return as_.bts(x, by);
        case Opcode::btr: return as_.btr(x, by);
        default: return as_.btc(x, by);
        }
    };
    if (immediate)
        go(std::uint8_t(imm));
    else
        go(as_.reg(n.type, b));
    if (n.op != Opcode::bt) finish_result(i, d);
    define_flags(i);
}

void Emitter::emit_fields(std::uint32_t i) {
    Inst const& n = inst(i);
    VMM_ASSERT(n.type >= Type::i32);
    if (n.op != Opcode::pdep && n.op != Opcode::pext) clobber_flags();
    int a = reg_of(n.a), b = n.b == none ? -1 : reg_of(n.b);
    int d = result_register(i);
    auto e = [&](int r) { return n.type == Type::i64 ? Xbyak::Reg32e(r, 64) : Xbyak::Reg32e(r, 32); };
    switch (n.op) {
    case Opcode::andn: as_.andn(e(d), e(a), e(b)); break;
    case Opcode::pdep: as_.pdep(e(d), e(a), e(b)); break;
    case Opcode::pext: as_.pext(e(d), e(a), e(b)); break;
    case Opcode::bextr: as_.bextr(e(d), e(a), e(b)); break;
    case Opcode::bzhi: as_.bzhi(e(d), e(a), e(b)); break;
    case Opcode::blsr: as_.blsr(e(d), e(a)); break;
    case Opcode::blsi: as_.blsi(e(d), e(a)); break;
    default: as_.blsmsk(e(d), e(a)); break;
    }
    finish_result(i, d);
    if (n.op != Opcode::pdep && n.op != Opcode::pext) define_flags(i);
}

} // namespace vmm::tcg::x64
