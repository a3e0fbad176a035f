// Emitter: guest memory. An access looks its page up in the TLB inline; misses continue in cold code.
#include "vmm/tcg/ir/op_info.h"
#include "vmm/tcg/x64/emitter.h"
#include "vmm/tcg/x64/slow_paths.h"

#include <bit>
#include <cstddef>
#include <utility>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

bool Emitter::emit_memory(std::uint32_t i) {
    switch (inst(i).op) {
    case Opcode::load: return emit_load(i), true;
    case Opcode::store: return emit_store(i), true;
    default:
        if (!traits(inst(i).op).memory) return false;
        return emit_rmw(i), true;
    }
}

// The address computed into r11, whose own value moves out.
Emitter::Address Emitter::in_r11(Address const& a) {
    if (a.base != host::r11 && a.index != host::r11)
        take(host::r11);
    else
        evict(host::r11);
    load_address(host::r11, a);
    lock(host::r11);
    return {.base = host::r11};
}

Emitter::Address Emitter::operands_of(ValueId v) {
    Address a;
    Value const& x = val(v);
    if (x.place == Place::address) {
        Inst const& n = inst(root(v));
        std::int64_t imm;
        ValueId base = n.a;
        a.disp = std::int32_t(n.imm);
        if (base != none && is_immediate(base, Type::i64, imm) && imm + n.imm == std::int32_t(imm + n.imm))
            a.disp = std::int32_t(imm + n.imm), base = none;
        if (base != none) a.base = reg_of(base);
        if (n.b != none) a.index = reg_of(n.b), a.shift = n.aux;
        if (a.base < 0 && a.index >= 0 && a.shift == 0) std::swap(a.base, a.index);
    } else {
        a.base = reg_of(v);
    }
    return a;
}

// Leaves r14 and r15 for the TLB check.
Emitter::Address Emitter::address_of(ValueId v) {
    Address a = operands_of(v);
    auto needed = [](int r) { return r == host::r14 || r == host::r15; };
    return needed(a.base) || needed(a.index) ? in_r11(a) : a;
}

void Emitter::load_address(int r, Address const& a, std::int32_t more) {
    int disp = a.disp + more;
    if (a.index < 0 && a.base >= 0) {
        if (disp == 0) {
            if (r != a.base) as_.mov(as_.r64(r), as_.r64(a.base));
        } else {
            as_.lea(r, a.base, -1, 0, disp);
        }
    } else if (a.base < 0 && a.index < 0) {
        as_.mov(as_.r64(r), std::uint64_t(std::int64_t(disp)));
    } else if (a.base < 0) {
        as_.lea(as_.r64(r), ptr[as_.r64(a.index) * (1 << a.shift) + disp]);
    } else {
        as_.lea(r, a.base, a.index, a.shift, disp);
    }
}

bool Emitter::begin_access(std::uint32_t i) {
    bool const checks_alignment = (inst(i).memory & mem_aligned) && size_of(inst(i).type) > 1;
    if (!groups_.member[i] || checks_alignment) return clobber_flags(), false;
    if (in_group(i) || !flags_.rflags) return false;
    save_rflags();
    return true;
}

// r14 and r15 become free, or r15 stays the addend instruction cur_ uses; called with the address's registers known.
void Emitter::reserve_temps() {
    take(host::r14);
    if (addend_held_ && in_group(cur_))
        lock(host::r15);
    else
        take(host::r15);
}

// r15 := what to add to guest addresses in [a + low, a + high); through r14. On a miss, jumps.
Fixup Emitter::check_range(Address const& a, std::int32_t low, std::int32_t high, bool write) {
    if (a.base >= 0 && a.index < 0 && a.disp + low == 0) {
        as_.rotate_right(host::r15, a.base, 8);
    } else {
        load_address(host::r15, a, low);
        as_.rotate_right(host::r15, host::r15, 8);
    }
    thunks_.copy_slot();
    load_address(host::r14, a, high - 1);
    return thunks_.copy_check(write);
}

// The host address of instruction i's access at a, through r14 and r15; on a miss, jumps. `held`: r15 has the addend of
// the group already. In a group there is no miss.
Emitter::HostAddress Emitter::translate(std::uint32_t i, Address const& a, bool write, bool held, Fixup& miss) {
    if (!in_group(i))
        miss = check_range(a, 0, std::int32_t(size_of(inst(i).type)), write);
    else if (!held)
        as_.mov(r15, qword[rsp + frame::group]);
    addend_held_ = in_group(i);
    if (a.base >= 0 && a.index < 0) return {.base = a.base, .index = host::r15, .disp = a.disp};
    load_address(host::r14, a);
    return {.base = host::r14, .index = host::r15};
}

void Emitter::leave_with_fault(FlagState const& f, std::int32_t offset) {
    store_for_exit(f);
    as_.mov(r15, std::int64_t(offset));
    as_.jump_to(thunks_.leave_fault);
}

void Emitter::fault_here(Fixup f) {
    FlagState state = flags_;
    std::int32_t offset = guest_offset_;
    cold_.push_back([=, this] {
        as_.bind(f);
        leave_with_fault(state, offset);
    });
}

// What thunks for the load or store i want to know.
std::uint64_t Emitter::access_word(std::uint32_t i, bool flags_saved) const {
    VMM_ASSERT(!flags_.recipe.uses(host::r14) && !flags_.recipe.uses(host::r15));
    ExitWord word = exit_word(flags_);
    if (word.flags == ExitWord::Flags::rflags && flags_saved) word.flags = ExitWord::Flags::saved;
    word.log2_bytes = unsigned(std::countr_zero(size_of(inst(i).type)));
    word.offset = guest_offset_;
    return word.pack();
}

void Emitter::call_access(std::uint8_t const* thunk, Address const& a, std::uint64_t word) {
    load_address(host::r14, a);
    as_.load_constant(host::r15, std::int64_t(word));
    as_.call_to(thunk);
}

void Emitter::check_alignment(std::uint32_t i, Address const& a) {
    unsigned size = size_of(inst(i).type);
    if (!(inst(i).memory & mem_aligned) || size == 1) return;
    Fixup bad;
    if (a.index < 0 && a.base >= 0 && a.disp % std::int32_t(size) == 0) {
        as_.test(as_.r8b(a.base), int(size - 1));
    } else {
        load_address(host::r14, a);
        as_.test(r14b, int(size - 1));
    }
    bad = as_.jump_if(Cond::ne);
    FlagState state = flags_;
    std::int32_t offset = guest_offset_;
    cold_.push_back([=, this] {
        as_.bind(bad);
        load_address(host::r14, a);
        as_.call_to(thunks_.alignment_fault);
        leave_with_fault(state, offset);
    });
}

void Emitter::emit_load(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool vector = t >= Type::v128, for_write = n.memory & mem_for_write;
    bool const flags_saved = begin_access(i);
    Address a = address_of(n.a);
    bool const held = addend_held_;
    reserve_temps();
    check_alignment(i, a);
    // Everything that moves values must come before the check: the slow path joins after the access.
    int p = pinned_target(i), d = p, x = -1;
    if (vector) {
        x = take_xmm();
    } else {
        bool const free = owner(host::r11) == none || (owner(host::r11) == root(n.a) && dies(n.a));
        if (p < 0) d = free && !(flags_.recipe.uses(host::r11) && !flags_.rflags) ? host::r11 : host::r14;
        forget_register(d);
    }
    Fixup miss;
    bool const calls = second_copy_ && !for_write, keep = live_vectors();
    HostAddress h =
        calls ? HostAddress{.base = host::rsp, .disp = frame::buffer} : translate(i, a, for_write, held, miss);
    std::uint64_t const word = access_word(i, flags_saved);
    if (calls) call_access(thunks_.look_up_load[keep][word & 7], a, word);
    auto slow = [=, this](auto result, std::uint8_t* back) {
        if (!miss.field) return;
        cold_.push_back([=, this] {
            as_.bind(miss);
            call_access(for_write ? thunks_.load_for_write[keep] : thunks_.load[keep], a, word);
            result();
            as_.jump_to(back);
        });
    };
    if (vector) {
        as_.vector_load(size_of(t), x, as_.in_memory(h.base, h.disp, h.index));
        slow([=, this] { as_.vector_load(size_of(t), x, as_.in_memory(host::rsp, frame::buffer)); }, as_.here());
        define_vector(i, x);
        if (flags_saved) restore_rflags();
        return;
    }
    bool narrow = t < Type::i32, merge = narrow && p >= 0 && !plan_.values[i].wide;
    auto read = [=, this](Xbyak::Address const& from) {
        if (merge)
            as_.mov(as_.reg(t, d), from);
        else if (narrow)
            as_.movzx(as_.r32(d), from);
        else
            as_.mov(as_.reg(t, d), from);
    };
    read(host_at(t, h));
    slow([=, this] { read(frame_at(t, frame::buffer)); }, as_.here());
    finish_result(i, d);
    if (flags_saved) restore_rflags();
}

void Emitter::emit_store(std::uint32_t i) {
    Inst const& n = inst(i);
    Type t = n.type;
    bool vector = t >= Type::v128;
    bool const flags_saved = begin_access(i);
    int x = vector ? xmm_of(n.b) : -1;
    std::int64_t imm = 0;
    bool immediate = !vector && is_immediate(n.b, t, imm);
    if (!vector && !immediate && val(n.b).place == Place::scratch) lock(val(n.b).reg);
    Address a = address_of(n.a);
    bool const held = addend_held_;
    reserve_temps();
    int value = !vector && !immediate && in_register(n.b) ? int(val(n.b).reg) : -1;
    // A value from elsewhere goes through r14, which an address with an index would need.
    bool loads = !vector && !immediate && value < 0;
    if (loads) value = host::r14;
    if (loads && (a.index >= 0 || a.base < 0)) a = in_r11(a);
    check_alignment(i, a);
    Value const from = loads ? val(n.b) : Value{};
    std::uint64_t const word = access_word(i, flags_saved);
    bool const keep = live_vectors();
    auto call = [=, this, id = n.b](std::uint8_t const* thunk) {
        if (vector) {
            as_.vector_store(size_of(t), as_.in_memory(host::rsp, frame::buffer), x);
        } else if (immediate) {
            as_.mov(frame_at(t, frame::buffer), std::uint64_t(imm));
        } else {
            if (loads) {
                Value saved = std::exchange(val(id), from);
                move_to(value, id, t);
                val(id) = saved;
            }
            as_.mov(frame_at(t, frame::buffer), as_.reg(t, value));
        }
        call_access(thunk, a, word);
    };
    if (second_copy_) {
        call(thunks_.look_up_store[keep][word & 7]);
        if (flags_saved) restore_rflags();
        return;
    }
    Fixup miss;
    HostAddress h = translate(i, a, true, held, miss);
    if (loads) move_to(value, n.b, t);
    if (vector)
        as_.vector_store(size_of(t), as_.in_memory(h.base, h.disp, h.index), x);
    else if (immediate)
        as_.mov(host_at(t, h), std::uint64_t(imm));
    else
        as_.mov(host_at(t, h), as_.reg(t, value));
    if (!miss.field) return;
    std::uint8_t* back = as_.here();
    cold_.push_back([=, this] {
        as_.bind(miss);
        call(thunks_.store[keep]);
        as_.jump_to(back);
    });
}

} // namespace vmm::tcg::x64
