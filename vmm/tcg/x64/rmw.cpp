// Emitter: read-modify-write operations on guest memory.
#include "vmm/tcg/x64/emitter.h"
#include "vmm/tcg/x64/slow_paths.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

namespace {

bool is_bit_op(Opcode op) { return op == Opcode::rmw_bts || op == Opcode::rmw_btr || op == Opcode::rmw_btc; }
bool reads_carry(Opcode op) {
    return op == Opcode::rmw_adc || op == Opcode::rmw_sbb || op == Opcode::rmw_inc || op == Opcode::rmw_dec;
}
// Operations the host does in one instruction, with the result wanted or not.
bool is_native(Inst const& n, bool result_used) {
    if (is_bit_op(n.op)) return n.type != Type::i8 && !result_used;
    if (n.op == Opcode::rmw_add || n.op == Opcode::rmw_xchg || n.op == Opcode::cmpxchg) return true;
    return !result_used;
}

} // namespace

// The host instruction on [r15]. The operand is an immediate or in r14 (which also takes the result).
void Emitter::rmw_native(std::uint32_t i, int operand, std::int64_t imm) {
    Inst const& n = inst(i);
    bool immediate = operand < 0, used = plan_.values[i].uses != 0;
    auto memory = as_.sized(n.type, Xbyak::RegExp(r15));
    auto reg = as_.reg(n.type, immediate ? int(host::r14) : operand);
    if (reads_carry(n.op)) as_.bt(frame_at(Type::i32, frame::carry), 0);
    if (options_.atomic && (n.memory & mem_lock) && n.op != Opcode::rmw_xchg) as_.lock();
    auto alu_op = [&](Opcode op) {
        if (immediate)
            alu(op, memory, imm);
        else
            alu(op, memory, reg);
    };
    switch (n.op) {
    case Opcode::rmw_add:
        if (used)
            as_.xadd(memory, reg);
        else
            alu_op(Opcode::add);
        break;
    case Opcode::rmw_or: alu_op(Opcode::or_); break;
    case Opcode::rmw_adc: alu_op(Opcode::adc); break;
    case Opcode::rmw_sbb: alu_op(Opcode::sbb); break;
    case Opcode::rmw_and: alu_op(Opcode::and_); break;
    case Opcode::rmw_sub: alu_op(Opcode::sub); break;
    case Opcode::rmw_xor: alu_op(Opcode::xor_); break;
    case Opcode::rmw_inc: as_.inc(memory); break;
    case Opcode::rmw_dec: as_.dec(memory); break;
    case Opcode::rmw_neg: as_.neg(memory); break;
    case Opcode::rmw_not: as_.not_(memory); break;
    case Opcode::rmw_bts: as_.bts(memory, reg); break;
    case Opcode::rmw_btr: as_.btr(memory, reg); break;
    case Opcode::rmw_btc: as_.btc(memory, reg); break;
    case Opcode::rmw_xchg: as_.xchg(memory, reg); break;
    default: VMM_UNREACHABLE();
    }
}

void Emitter::emit_rmw(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool used = plan_.values[i].uses != 0, wanted = flags_wanted(i), compare = n.op == Opcode::cmpxchg;
    bool native = is_native(n, used), bits = is_bit_op(n.op);
    bool takes_register = used || bits || compare || n.op == Opcode::rmw_xchg; // an operand register that changes
    if (reads_carry(n.op) && (wanted || n.op == Opcode::rmw_adc || n.op == Opcode::rmw_sbb)) {
        need_rflags();
        as_.setc(frame_at(Type::i8, frame::carry));
    }
    if (bits && wanted) need_memory(); // the other flags are kept there
    clobber_flags();
    // Operands b and c go to the frame: cold code wants them there, and they free the registers.
    auto to_frame = [&](ValueId v, std::int32_t at) {
        std::int64_t imm;
        if (v == none) return;
        if (is_immediate(v, t, imm))
            as_.mov(frame_at(t, at), std::uint64_t(imm));
        else
            as_.mov(frame_at(t, at), as_.reg(t, reg_of(v)));
    };
    std::int64_t imm = 0;
    bool immediate = n.b != none && is_immediate(n.b, t, imm) && !takes_register;
    // Guest registers stay where they are: a store before a locked instruction holds that up.
    auto pin_of = [&](ValueId v) { return v != none && val(v).place == Place::pinned ? int(val(v).reg) : -1; };
    int b_pin = pin_of(n.b), c_pin = compare ? pin_of(n.c) : -1;
    if (immediate) b_pin = -1;
    bool in_frame = !immediate && b_pin < 0;
    if (in_frame) to_frame(n.b, frame::buffer);
    if (compare && c_pin < 0) to_frame(n.c, frame::buffer + 8);
    for (ValueId v : {n.b, n.c})
        if (v != none && val(v).place == Place::scratch) locked_ &= ~(1u << val(v).reg);
    Address a = address_of(n.a);
    reserve_temps();
    Fixup miss;
    HostAddress h = translate(i, a, true, false, miss);
    if (h.disp)
        as_.lea(r15, ptr[as_.r64(h.base) + r15 + int(h.disp)]);
    else
        as_.add(r15, as_.r64(h.base));
    std::uint8_t* access = as_.here();
    // Done in C++: what the host has no instruction for, and atomics that are not aligned (a host instruction for one
    // that straddles cache lines stops all other processors, and host kernels punish it).
    Fixup elsewhere;
    bool atomic = compare || n.op == Opcode::rmw_xchg || (n.memory & mem_lock);
    if (!native) {
        elsewhere = as_.jump();
    } else if (atomic && t != Type::i8) {
        as_.test(r15b, int(size_of(t) - 1));
        elsewhere = as_.jump_if(Cond::ne);
    }
    if (native && compare) {
        as_.mov(frame_at(Type::i64, frame::keep1), rax);
        if (c_pin >= 0)
            as_.mov(as_.reg(t, host::r14), as_.reg(t, c_pin));
        else
            as_.mov(as_.reg(t, host::r14), frame_at(t, frame::buffer + 8));
        if (b_pin < 0)
            as_.mov(as_.reg(t, host::rax), frame_at(t, frame::buffer));
        else if (b_pin != host::rax)
            as_.mov(as_.reg(t, host::rax), as_.reg(t, b_pin));
        if (options_.atomic) as_.lock();
        as_.cmpxchg(as_.sized(t, Xbyak::RegExp(r15)), as_.reg(t, host::r14));
        as_.mov(t == Type::i64 ? Xbyak::Reg(r14) : Xbyak::Reg(r14d),
                t == Type::i64 ? Xbyak::Reg(rax) : Xbyak::Reg(eax));
        as_.mov(rax, frame_at(Type::i64, frame::keep1));
    } else if (native) {
        if (takes_register && b_pin >= 0)
            as_.mov(as_.r64(host::r14), as_.r64(b_pin));
        else if (in_frame && n.b != none) {
            if (t == Type::i64)
                as_.mov(r14, frame_at(t, frame::buffer));
            else if (t == Type::i32)
                as_.mov(r14d, frame_at(t, frame::buffer));
            else
                as_.movzx(r14d, frame_at(t, frame::buffer));
        }
        if (bits) as_.and_(r14d, int(bits_of(t) - 1));
        rmw_native(i, immediate ? -1 : b_pin >= 0 && !takes_register ? b_pin : int(host::r14), imm);
        if (bits && wanted) { // CF is the old bit, the rest what it was
            as_.setc(frame_at(Type::i8, frame::carry));
            as_.call_to(thunks_.restore_flags);
            as_.bt(frame_at(Type::i32, frame::carry), 0);
        }
    }
    std::uint8_t* back = as_.here();
    FlagState before = flags_;
    std::int32_t offset = guest_offset_;
    bool keep = live_vectors();
    cold_.push_back([=, this] {
        as_.bind(miss);
        load_address(host::r14, a);
        as_.mov(r15d, size_of(t));
        as_.call_to(thunks_.rmw_pointer[keep]);
        Fixup fault = as_.jump_if(Cond::e);
        if (native) {
            as_.test(r15, r15);
            as_.bind(as_.jump_if(Cond::ne), access);
        }
        if (elsewhere.field) as_.bind(elsewhere);
        load_address(host::r14, a);
        if (immediate)
            as_.mov(frame_at(t, frame::buffer), std::uint64_t(imm));
        else if (b_pin >= 0)
            as_.mov(frame_at(t, frame::buffer), as_.reg(t, b_pin));
        if (c_pin >= 0) as_.mov(frame_at(t, frame::buffer + 8), as_.reg(t, c_pin));
        as_.mov(r15d, pack_rmw(inst(i)));
        as_.call_to(thunks_.rmw[keep]);
        Fixup slow_fault = as_.jump_if(Cond::e);
        as_.mov(r14, r15);
        if (wanted) {
            as_.push(frame_at(Type::i64, frame::image));
            as_.popfq();
        }
        as_.bind(as_.jump(), back);
        as_.bind(fault);
        as_.bind(slow_fault);
        leave_with_fault(before, offset);
    });
    // In this order: the result may overwrite a register the old flags are remembered by, which nobody needs any more
    // and whose saving would cost the new ones.
    define_flags(i);
    if (used) finish_result(i, host::r14);
}

} // namespace vmm::tcg::x64
