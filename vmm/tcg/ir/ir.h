// The guest-neutral intermediate representation: a straight-line block of SSA instructions and how it ends.
//
// Front ends build blocks with Builder; passes (passes.h) rewrite them; the interpreter and the x64 back end execute
// them. Condition codes are a pseudo register "cc": instructions with sets_flags define it, others read it, in program
// order.
#pragma once
#include "vmm/base/assert.h"

#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

namespace vmm::tcg::ir {

enum class Opcode : std::uint8_t {
#define OP(name, result, args, traits, doc) name,
#include "vmm/tcg/ir/opcodes.inc"
#undef OP
};
inline constexpr unsigned opcode_count = 0
#define OP(name, result, args, traits, doc) +1
#include "vmm/tcg/ir/opcodes.inc"
#undef OP
    ;

enum class Type : std::uint8_t { i8, i16, i32, i64, v128, v256 };
constexpr unsigned size_of(Type t) { return t <= Type::i64 ? 1u << unsigned(t) : t == Type::v128 ? 16 : 32; }
constexpr unsigned bits_of(Type t) { return size_of(t) * 8; }
// The integer type of `bytes` bytes (1, 2, 4, 8).
constexpr Type int_type(unsigned bytes) {
    return bytes == 1 ? Type::i8 : bytes == 2 ? Type::i16 : bytes == 4 ? Type::i32 : Type::i64;
}

// Conditions in the encoding of x86's Jcc (low bit inverts).
enum class Cond : std::uint8_t { o, no, b, ae, e, ne, be, a, s, ns, p, np, l, ge, le, g };
constexpr Cond invert(Cond c) { return Cond(std::uint8_t(c) ^ 1); }

// An instruction's index in its block names the value it makes. `none` is an absent argument.
using ValueId = std::uint16_t;
inline constexpr ValueId none = 0xffff;

// Memory attributes (Inst::memory).
enum MemAttr : std::uint8_t {
    mem_aligned = 1,   // misaligned: the guest's alignment fault (#GP(0) for SSE)
    mem_for_write = 2, // a load that must fault as a write does (the store follows)
    mem_lock = 4,      // atomic
    mem_non_temporal = 8,
};
inline constexpr std::uint8_t no_base_hint = 0xff;

struct Inst {
    Opcode op{};
    Type type = Type::i64;
    Cond cc = Cond::o;
    bool sets_flags = false;
    std::uint8_t memory = 0;               // MemAttr bits
    std::uint8_t base_hint = no_base_hint; // the guest register the address is based on (a hint for translation caches)
    std::uint8_t aux = 0;                  // see the op table: source type, shift, length
    std::uint16_t vec_op = 0;              // VecOp of vec, vec_to_gpr, gpr_to_vec
    ValueId a = none, b = none, c = none;
    std::int64_t imm = 0;
};

// --- how a block ends. Offsets are relative to the start of the block's code page (context.pc_base), signed.
// The next address is known and in the same address space and mode.
struct Jump {
    std::int32_t target;
    bool is_call = false; // for return prediction: the guest pushed `return_to`
    std::int32_t return_to = 0;
};
struct Branch { // on cc
    Cond cc;
    std::int32_t taken, not_taken;
};
struct BranchNonZero { // on a value's type-width bits
    ValueId value;
    Type type;
    std::int32_t taken, not_taken;
};
enum class IndirectKind : std::uint8_t { jump, call, ret };
struct Indirect { // to the guest address in `target` (i64; the engine truncates to the mode's width)
    ValueId target;
    IndirectKind kind;
    std::int32_t return_to = 0; // calls: where the return address points
};
// A helper has set the guest's program counter and perhaps its mode, or asked for an exit: look everything up anew.
struct Dispatch {};
using Terminal = std::variant<Dispatch, Jump, Branch, BranchNonZero, Indirect>;

struct Block {
    std::vector<Inst> insts;
    Terminal terminal;
    std::uint16_t guest_insns = 0; // how many guest instructions
    std::uint16_t guest_bytes = 0; // bytes of guest code covered, from `start`
    std::int32_t start = 0;        // in-page offset of the first byte
    bool crosses_page = false;     // the last (only) instruction continues in the next page
    bool alone = false;            // ends in the engine's loop, wherever it goes
    std::uint64_t address = 0;     // linear address of the first byte when it was translated; for listings only
};

// Appends instructions. Values are typed by the instruction that makes them.
class Builder {
public:
    explicit Builder(Block& block) : block_(block) {}
    Block& block() { return block_; }

    ValueId emit(Inst inst) {
        VMM_ASSERT(block_.insts.size() < none);
        block_.insts.push_back(inst);
        return ValueId(block_.insts.size() - 1);
    }
    ValueId constant(Type t, std::int64_t v) { return emit({.op = Opcode::constant, .type = t, .imm = v}); }
    ValueId get(Type t, std::size_t offset) {
        return emit({.op = Opcode::get, .type = t, .imm = std::int64_t(offset)});
    }
    void put(Type t, std::size_t offset, ValueId v) {
        emit({.op = Opcode::put, .type = t, .a = v, .imm = std::int64_t(offset)});
    }
    ValueId pc(std::int32_t offset) { return emit({.op = Opcode::pc, .type = Type::i64, .imm = offset}); }
    ValueId binary(Opcode op, Type t, ValueId a, ValueId b, bool sets_flags = false) {
        return emit({.op = op, .type = t, .sets_flags = sets_flags, .a = a, .b = b});
    }
    ValueId unary(Opcode op, Type t, ValueId a, bool sets_flags = false) {
        return emit({.op = op, .type = t, .sets_flags = sets_flags, .a = a});
    }
    ValueId zext(Type to, ValueId v) { return convert(Opcode::zext, to, v); }
    ValueId sext(Type to, ValueId v) { return convert(Opcode::sext, to, v); }
    ValueId trunc(Type to, ValueId v) { return type_of(v) == to ? v : emit({.op = Opcode::trunc, .type = to, .a = v}); }
    ValueId lea(Type t, ValueId base, ValueId index, unsigned shift, std::int64_t disp) {
        return emit({.op = Opcode::lea, .type = t, .aux = std::uint8_t(shift), .a = base, .b = index, .imm = disp});
    }
    ValueId load(Type t, ValueId address, std::uint8_t attributes = 0, std::uint8_t base_hint = no_base_hint) {
        return emit({.op = Opcode::load, .type = t, .memory = attributes, .base_hint = base_hint, .a = address});
    }
    void store(Type t, ValueId address, ValueId v, std::uint8_t attributes = 0, std::uint8_t base_hint = no_base_hint) {
        emit({.op = Opcode::store, .type = t, .memory = attributes, .base_hint = base_hint, .a = address, .b = v});
    }
    ValueId setcc(Cond cc) { return emit({.op = Opcode::setcc, .type = Type::i8, .cc = cc}); }
    ValueId select_cc(Type t, Cond cc, ValueId a, ValueId b) {
        return emit({.op = Opcode::select_cc, .type = t, .cc = cc, .a = a, .b = b});
    }
    ValueId vec(std::uint16_t vec_op, ValueId a, ValueId b = none, std::int64_t imm = 0, Type t = Type::v128) {
        return emit({.op = Opcode::vec, .type = t, .vec_op = vec_op, .a = a, .b = b, .imm = imm});
    }
    ValueId call(std::uint16_t helper, ValueId a = none, ValueId b = none, ValueId c = none) {
        return emit({.op = Opcode::call, .type = Type::i64, .a = a, .b = b, .c = c, .imm = helper});
    }
    Type type_of(ValueId v) const { return block_.insts[v].type; }

private:
    ValueId convert(Opcode op, Type to, ValueId v) {
        Type from = type_of(v);
        return from == to ? v : emit({.op = op, .type = to, .aux = std::uint8_t(from), .a = v});
    }
    Block& block_;
};

} // namespace vmm::tcg::ir
