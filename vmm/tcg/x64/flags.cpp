// Emitter: where the condition codes are: in RFLAGS, in the context, or in the operands of an instruction that would
// set them again.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

#define CONTEXT(field) rbp + int(offsetof(EngineContext, field))

Recipe Emitter::recipe(Recipe::Kind kind, Type t, int x, int y, std::int64_t imm) {
    return {.kind = kind, .type = t, .x = std::int8_t(x), .y = std::int8_t(y), .imm = imm};
}

// A scratch register nobody needs the content of, or -1.
int Emitter::spare_scratch() {
    int spare = -1;
    for (int r : {host::r15, host::r14, host::r11})
        if (owner(r) == none && !locked(r) && !flags_.recipe.uses(r) && !(r == host::r15 && addend_held_)) spare = r;
    return spare;
}

// rax is moved away around f, which may change it, without touching RFLAGS.
template <class F> void Emitter::with_rax(F f) {
    int const keep = spare_scratch();
    if (keep < 0)
        as_.mov(frame_at(Type::i64, frame::keep0), rax);
    else
        as_.mov(as_.r64(keep), rax);
    f();
    if (keep < 0)
        as_.mov(rax, frame_at(Type::i64, frame::keep0));
    else
        as_.mov(rax, as_.r64(keep));
}

void Emitter::store_raw() { emit_store_rflags(as_, spare_scratch()); }

void Emitter::save_rflags() {
    with_rax([&] {
        as_.lahf();
        as_.seto(al);
        as_.mov(frame_at(Type::i64, frame::flags), rax);
    });
}

// `from`: a lahf image.
void Emitter::load_rflags(Xbyak::Address const& from) {
    with_rax([&] {
        as_.mov(rax, from);
        as_.add(al, 0x7f); // sets OF when bit 0 is set
        as_.sahf();
    });
}

void Emitter::clobber_flags() {
    if (!flags_.rflags) return;
    bool live = cur_ >= block_.insts.size() || plan_.values[cur_].flags_live_before;
    if (live && !flags_.memory && flags_.recipe.kind == Recipe::shifted && !flags_.carry) {
        as_.setc(frame_at(Type::i8, frame::shift_carry));
        flags_.carry = true;
    }
    if (live && !flags_.memory && !flags_.has_recipe()) {
        store_raw();
        flags_.memory = flags_.lahf = true;
    }
    flags_.rflags = false;
}

void Emitter::need_memory() {
    if (flags_.memory) return;
    bool keeps_rflags = flags_.recipe.kind != Recipe::test;
    if (flags_.has_recipe() && (keeps_rflags || !flags_.rflags))
        emit_store_recipe(as_, flags_.recipe);
    else if (flags_.rflags)
        store_raw(), flags_.lahf = true;
    flags_.memory = true;
}

void Emitter::store_for_exit(FlagState const& f) {
    if (f.memory) return;
    if (f.has_recipe())
        emit_store_recipe(as_, f.recipe);
    else
        store_raw();
}

void Emitter::replay(Recipe const& r) {
    auto x = as_.reg(r.type, r.x);
    auto apply = [&](auto op_reg, auto op_imm, Xbyak::Reg const& d) {
        if (r.y >= 0)
            op_reg(d, as_.reg(r.type, r.y));
        else if (r.slot >= 0)
            op_reg(d, context_at(r.type, r.slot));
        else
            op_imm(d, std::uint32_t(r.imm));
    };
    auto subtract = [&](Xbyak::Reg const& d) {
        apply([&](auto& a, auto b) { as_.sub(a, b); }, [&](auto& a, auto b) { as_.sub(a, b); }, d);
    };
    auto add = [&](Xbyak::Reg const& d) {
        apply([&](auto& a, auto b) { as_.add(a, b); }, [&](auto& a, auto b) { as_.add(a, b); }, d);
    };
    auto compare = [&](Xbyak::Reg const& d) {
        apply([&](auto& a, auto b) { as_.cmp(a, b); }, [&](auto& a, auto b) { as_.cmp(a, b); }, d);
    };
    auto copy = [&] {
        for (int s : {host::r11, host::r14, host::r15})
            if (r.uses(s)) lock(s);
        int t = take_scratch();
        as_.mov(as_.r64(t), as_.r64(r.x));
        return as_.reg(r.type, t);
    };
    switch (r.kind) {
    case Recipe::cmp: return compare(x);
    case Recipe::logic: as_.test(x, x); return;
    case Recipe::shifted:
        as_.test(x, x);
        as_.bt(frame_at(Type::i32, frame::shift_carry), 0);
        return;
    case Recipe::test:
        if (r.y >= 0)
            as_.test(x, as_.reg(r.type, r.y));
        else
            as_.test(x, std::uint32_t(r.imm));
        return;
    case Recipe::add: {
        auto t = copy();
        subtract(t);
        return add(t);
    }
    case Recipe::sub: {
        auto t = copy();
        add(t);
        return compare(t);
    }
    case Recipe::neg: {
        auto t = copy();
        as_.neg(t);
        as_.neg(t);
        return;
    }
    default: VMM_UNREACHABLE();
    }
}

void Emitter::need_rflags() {
    if (flags_.rflags) return;
    std::uint32_t held = locked_;
    if (flags_.has_recipe())
        replay(flags_.recipe);
    else if (flags_.lahf)
        load_rflags(qword[CONTEXT(cc_src)]);
    else
        as_.call_to(thunks_.restore_flags);
    locked_ = held;
    flags_.rflags = true;
}

// After the host instruction that set RFLAGS as instruction i wants them.
void Emitter::define_flags(std::uint32_t i, Recipe r) {
    if (!flags_wanted(i)) {
        // Either nobody looks, or the operation does not define them and clobber_flags has been called.
        if (inst(i).sets_flags) flags_ = {.rflags = false, .memory = false, .recipe = {}};
        return;
    }
    flags_ = {.rflags = true, .memory = false, .recipe = r};
}

} // namespace vmm::tcg::x64
