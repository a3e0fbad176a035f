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

// rax is moved away around f, which may change it, without touching RFLAGS.
template <class F> void Emitter::with_rax(F f) {
    int keep = -1;
    for (int r : {host::r15, host::r14, host::r11})
        if (owner(r) == none && !locked(r) && !flags_.recipe.uses(r) && !(r == host::r15 && addend_held_)) keep = r;
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

// Keeps RFLAGS. LAHF and SETO take a third of the time of PUSHFQ.
void Emitter::store_raw() {
    with_rax([&] {
        as_.lahf();
        as_.seto(al);
        as_.mov(qword[CONTEXT(cc_src)], rax);
    });
    as_.mov(dword[CONTEXT(cc_op)], cc_op(CcKind::lahf, 3));
}

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
    bool live = cur_ >= block_.insts.size() || plan_.flags_live_before[cur_];
    if (live && !flags_.memory && flags_.recipe.kind == Recipe::none) {
        store_raw();
        flags_.memory = flags_.lahf = true;
    }
    flags_.rflags = false;
}

// Without touching RFLAGS, any register or (but for one word below it) the stack.
void Emitter::store_recipe(Recipe const& r) {
    unsigned width = unsigned(r.type);
    CcKind kind = r.kind == Recipe::add                               ? CcKind::add
                  : r.kind == Recipe::logic || r.kind == Recipe::test ? CcKind::logic
                                                                      : CcKind::sub;
    int borrowed = -1;
    auto temporary = [&] {
        if (borrowed < 0) {
            borrowed = host::rax;
            while (r.uses(borrowed)) ++borrowed;
            as_.mov(frame_at(Type::i64, frame::keep0), as_.r64(borrowed));
        }
        return borrowed;
    };
    auto source = [&] {
        if (r.y >= 0)
            as_.mov(qword[CONTEXT(cc_src)], as_.r64(r.y));
        else if (r.slot >= 0) {
            int t = temporary();
            as_.mov(as_.r64(t), context_at(Type::i64, r.slot));
            as_.mov(qword[CONTEXT(cc_src)], as_.r64(t));
        } else
            as_.mov(qword[CONTEXT(cc_src)], std::uint64_t(r.imm));
    };
    switch (r.kind) {
    case Recipe::add:
    case Recipe::sub:
        as_.mov(qword[CONTEXT(cc_res)], as_.r64(r.x));
        source();
        break;
    case Recipe::cmp: {
        int t = temporary();
        if (r.y >= 0) {
            as_.mov(as_.r64(t), as_.r64(r.y));
            as_.not_(as_.r64(t));
            as_.lea(as_.r64(t), ptr[as_.r64(r.x) + as_.r64(t) + 1]);
        } else if (-r.imm == std::int32_t(-r.imm)) {
            as_.lea(as_.r64(t), ptr[as_.r64(r.x) + int(-r.imm)]);
        } else {
            as_.mov(as_.r64(t), -r.imm);
            as_.lea(as_.r64(t), ptr[as_.r64(r.x) + as_.r64(t)]);
        }
        as_.mov(qword[CONTEXT(cc_res)], as_.r64(t));
        source();
        break;
    }
    case Recipe::logic: as_.mov(qword[CONTEXT(cc_res)], as_.r64(r.x)); break;
    case Recipe::neg: {
        int t = temporary();
        as_.mov(qword[CONTEXT(cc_res)], as_.r64(r.x));
        as_.mov(as_.r64(t), as_.r64(r.x));
        as_.not_(as_.r64(t));
        as_.lea(as_.r64(t), ptr[as_.r64(t) + 1]);
        as_.mov(qword[CONTEXT(cc_src)], as_.r64(t));
        break;
    }
    case Recipe::test: { // only where RFLAGS are not wanted any more
        int t = temporary();
        as_.mov(as_.r64(t), as_.r64(r.x));
        if (r.y >= 0)
            as_.and_(as_.r64(t), as_.r64(r.y));
        else
            as_.and_(as_.r64(t), std::uint32_t(r.imm));
        as_.mov(qword[CONTEXT(cc_res)], as_.r64(t));
        break;
    }
    default: VMM_UNREACHABLE();
    }
    as_.mov(dword[CONTEXT(cc_op)], cc_op(kind, width));
    if (borrowed >= 0) as_.mov(as_.r64(borrowed), frame_at(Type::i64, frame::keep0));
}

void Emitter::need_memory() {
    if (flags_.memory) return;
    bool keeps_rflags = flags_.recipe.kind != Recipe::test;
    if (flags_.recipe.kind != Recipe::none && (keeps_rflags || !flags_.rflags))
        store_recipe(flags_.recipe);
    else if (flags_.rflags)
        store_raw(), flags_.lahf = true;
    flags_.memory = true;
}

void Emitter::store_for_exit(FlagState const& f) {
    if (f.memory) return;
    if (f.recipe.kind != Recipe::none)
        store_recipe(f.recipe);
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
    if (flags_.recipe.kind != Recipe::none)
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
