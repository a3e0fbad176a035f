#include "vmm/tcg/x64/flag_state.h"

#include "vmm/base/assert.h"
#include "vmm/tcg/cc.h"
#include "vmm/tcg/x64/frame.h"

#include <cstddef>
#include <cstring>

namespace vmm::tcg::x64 {

using ir::Type;
using namespace Xbyak::util;

#define CONTEXT(field) rbp + int(offsetof(EngineContext, field))

// Bits: 0-2 log2 of the size, 3-4 flags, 5-7 kind, 8-9 type, 10-13 x, 14-17 y, 18 the operand is y, 19-31 in-page
// offset, 32-63 immediate or slot; an operand that is not y is in the slot when y is 1.
std::uint64_t ExitWord::pack() const {
    bool const in_register = recipe.y >= 0, in_slot = !in_register && recipe.slot >= 0;
    std::int64_t const rest = in_register ? 0 : in_slot ? recipe.slot : recipe.imm;
    VMM_ASSERT(rest == std::int32_t(rest) && offset >= -4096 && offset < 4096);
    std::uint32_t low = log2_bytes | std::uint32_t(flags) << 3 | std::uint32_t(offset) << 19;
    if (flags != Flags::recipe) return low;
    low |= std::uint32_t(recipe.kind) << 5 | std::uint32_t(recipe.type) << 8 | std::uint32_t(recipe.x) << 10 |
           (in_register ? std::uint32_t(recipe.y) : std::uint32_t(in_slot)) << 14 | std::uint32_t(in_register) << 18;
    return low | std::uint64_t(std::uint32_t(rest)) << 32;
}

ExitWord ExitWord::unpack(std::uint64_t word) {
    auto bits = [=](unsigned at, unsigned count) { return unsigned(word >> at) & ((1u << count) - 1); };
    ExitWord w{.flags = Flags(bits(3, 2)), .recipe = {}, .log2_bytes = bits(0, 3), .offset = access_offset(word)};
    if (w.flags != Flags::recipe) return w;
    std::int32_t const rest = std::int32_t(word >> 32);
    w.recipe = {.kind = Recipe::Kind(bits(5, 3)), .type = Type(bits(8, 2)), .x = std::int8_t(bits(10, 4))};
    if (bits(18, 1))
        w.recipe.y = std::int8_t(bits(14, 4));
    else if (bits(14, 4))
        w.recipe.slot = rest;
    else
        w.recipe.imm = rest;
    return w;
}

ExitWord exit_word(FlagState const& state) {
    if (state.memory) return {};
    if (state.has_recipe()) return {.flags = ExitWord::Flags::recipe, .recipe = state.recipe};
    return {.flags = state.rflags ? ExitWord::Flags::rflags : ExitWord::Flags::stored, .recipe = {}};
}

namespace {
CcKind cc_kind(Recipe::Kind kind) {
    switch (kind) {
    case Recipe::add: return CcKind::add;
    case Recipe::logic:
    case Recipe::test: return CcKind::logic;
    case Recipe::shifted: return CcKind::res_co;
    default: return CcKind::sub;
    }
}
} // namespace

void emit_store_recipe(Assembler& as, Recipe const& r) {
    unsigned width = unsigned(r.type);
    int borrowed = -1;
    auto temporary = [&] {
        if (borrowed < 0) {
            borrowed = host::rax;
            while (r.uses(borrowed)) ++borrowed;
            as.mov(qword[rsp + frame::keep0], as.r64(borrowed));
        }
        return borrowed;
    };
    auto source = [&] {
        if (r.y >= 0)
            as.mov(qword[CONTEXT(cc_src)], as.r64(r.y));
        else if (r.slot >= 0) {
            int t = temporary();
            as.mov(as.r64(t), qword[rbp + int(r.slot)]);
            as.mov(qword[CONTEXT(cc_src)], as.r64(t));
        } else
            as.mov(qword[CONTEXT(cc_src)], std::uint64_t(r.imm));
    };
    switch (r.kind) {
    case Recipe::add:
    case Recipe::sub:
        as.mov(qword[CONTEXT(cc_res)], as.r64(r.x));
        source();
        break;
    case Recipe::cmp: {
        int t = temporary();
        if (r.y >= 0) {
            as.mov(as.r64(t), as.r64(r.y));
            as.not_(as.r64(t));
            as.lea(as.r64(t), ptr[as.r64(r.x) + as.r64(t) + 1]);
        } else if (-r.imm == std::int32_t(-r.imm)) {
            as.lea(as.r64(t), ptr[as.r64(r.x) + int(-r.imm)]);
        } else {
            as.mov(as.r64(t), -r.imm);
            as.lea(as.r64(t), ptr[as.r64(r.x) + as.r64(t)]);
        }
        as.mov(qword[CONTEXT(cc_res)], as.r64(t));
        source();
        break;
    }
    case Recipe::logic: as.mov(qword[CONTEXT(cc_res)], as.r64(r.x)); break;
    case Recipe::shifted: {
        int t = temporary();
        as.mov(qword[CONTEXT(cc_res)], as.r64(r.x));
        as.movzx(as.r32(t), byte[rsp + frame::shift_carry]);
        as.mov(qword[CONTEXT(cc_src)], as.r64(t));
        break;
    }
    case Recipe::neg: {
        int t = temporary();
        as.mov(qword[CONTEXT(cc_res)], as.r64(r.x));
        as.mov(as.r64(t), as.r64(r.x));
        as.not_(as.r64(t));
        as.lea(as.r64(t), ptr[as.r64(t) + 1]);
        as.mov(qword[CONTEXT(cc_src)], as.r64(t));
        break;
    }
    case Recipe::test: { // only where RFLAGS are not wanted any more
        int t = temporary();
        as.mov(as.r64(t), as.r64(r.x));
        if (r.y >= 0)
            as.and_(as.r64(t), as.r64(r.y));
        else
            as.and_(as.r64(t), std::uint32_t(r.imm));
        as.mov(qword[CONTEXT(cc_res)], as.r64(t));
        break;
    }
    default: VMM_UNREACHABLE();
    }
    as.mov(dword[CONTEXT(cc_op)], cc_op(cc_kind(r.kind), width));
    if (borrowed >= 0) as.mov(as.r64(borrowed), qword[rsp + frame::keep0]);
}

// LAHF and SETO take a third of the time of PUSHFQ.
void emit_store_rflags(Assembler& as, int keep) {
    if (keep < 0)
        as.mov(qword[rsp + frame::keep0], rax);
    else
        as.mov(as.r64(keep), rax);
    as.lahf();
    as.seto(al);
    as.mov(qword[CONTEXT(cc_src)], rax);
    if (keep < 0)
        as.mov(rax, qword[rsp + frame::keep0]);
    else
        as.mov(rax, as.r64(keep));
    as.mov(dword[CONTEXT(cc_op)], cc_op(CcKind::lahf, 3));
}

void emit_store(Assembler& as, ExitWord const& word) {
    switch (word.flags) {
    case ExitWord::Flags::stored: return;
    case ExitWord::Flags::rflags: return emit_store_rflags(as, -1);
    case ExitWord::Flags::recipe: return emit_store_recipe(as, word.recipe);
    case ExitWord::Flags::saved: VMM_UNREACHABLE();
    }
}

void vmm_x64_store_flags(EngineContext& e, std::uint64_t packed, std::uint8_t const* frame, std::uint64_t rflags) {
    ExitWord const word = ExitWord::unpack(packed);
    auto value_at = [](void const* p) {
        std::uint64_t v;
        std::memcpy(&v, p, sizeof v);
        return v;
    };
    auto reg = [&](int r) { return value_at(frame + frame::registers + 8 * r); };
    switch (word.flags) {
    case ExitWord::Flags::stored: return;
    case ExitWord::Flags::rflags: return set_cc_raw(e, rflags);
    case ExitWord::Flags::saved:
        e.cc_src = value_at(frame + frame::flags);
        e.cc_op = cc_op(CcKind::lahf, 3);
        return;
    case ExitWord::Flags::recipe: break;
    }
    Recipe const& r = word.recipe;
    std::uint64_t const x = reg(r.x), y = r.y >= 0      ? reg(r.y)
                                          : r.slot >= 0 ? value_at(reinterpret_cast<std::uint8_t const*>(&e) + r.slot)
                                                        : std::uint64_t(r.imm);
    e.cc_res = r.kind == Recipe::cmp ? x - y : r.kind == Recipe::test ? x & y : x;
    e.cc_src = r.kind == Recipe::neg ? 0 - x : r.kind == Recipe::shifted ? frame[frame::shift_carry] : y;
    e.cc_op = cc_op(cc_kind(r.kind), unsigned(r.type));
}

} // namespace vmm::tcg::x64
