// Lifter: what every instruction handler works with: the decoded instruction, its operands as IR values, the builder
// and the ways a block can end.
//
// A handler is `bool handler(Lifter&)`. It emits the instruction's IR and returns true, or returns l.undefined(): then
// whatever it emitted for this instruction is dropped and #UD raised instead. Rule of exactness: everything that may
// fault (loads, stores, rmw, helpers with F) comes before the first put and before anything with sets_flags whose old
// value a fault must leave visible; stores come after the loads and checks.
#pragma once
#include "vmm/cpu/x86/constants.h"
#include "vmm/tcg/guest/x86/decode.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/ir/ir.h"

#include <cstdint>
#include <optional>

namespace vmm::tcg::x86 {

using ir::Builder;
using ir::Cond;
using ir::none;
using ir::Opcode;
using ir::Type;
using ir::ValueId;

class Lifter {
public:
    Lifter(Mode m, vmm::x86::CpuModel const& cpu, ir::Block& block) : b(block), mode(m), model(cpu) {}

    Builder b;
    Mode const mode;
    vmm::x86::CpuModel const& model;
    Decoded d;              // the current instruction
    std::int32_t start = 0; // its in-page offset
    std::int32_t next() const { return start + d.insn.length; }
    std::int32_t window = -1; // where an STI of this block let interrupts in: the block goes on past this offset

    // --- operands, by position
    unsigned operand_count() const { return d.insn.operand_count_visible; }
    ZydisDecodedOperand const& operand(unsigned i) const { return d.operands[i]; }
    bool is_memory(unsigned i) const { return operand(i).type == ZYDIS_OPERAND_TYPE_MEMORY; }
    bool is_register(unsigned i) const { return operand(i).type == ZYDIS_OPERAND_TYPE_REGISTER; }
    bool is_immediate(unsigned i) const { return operand(i).type == ZYDIS_OPERAND_TYPE_IMMEDIATE; }
    // The immediate, sign-extended where the manual says so.
    std::int64_t immediate(unsigned i) const { return operand(i).imm.value.s; }
    // Register number within its class: GPR 0-15 (AH..BH: see gpr_offset), segment, XMM/YMM/MMX/ST, CR, DR.
    unsigned register_number(unsigned i) const;
    // The integer type of operand i's size (1, 2, 4, 8 bytes).
    Type type(unsigned i) const { return ir::int_type(operand(i).size / 8u); }
    // Reads an integer operand (register, memory, immediate) with its own type, or with `t` (immediates are
    // sign-extended, registers and memory read with that width).
    ValueId read(unsigned i) { return read(i, type(i)); }
    ValueId read(unsigned i, Type t);
    // Writes an integer operand: 32-bit register writes clear the upper half in 64-bit-capable registers.
    void write(unsigned i, ValueId v);

    // --- general registers by number
    ValueId gpr(Type t, unsigned number) { return b.get(t, slot::gpr(number)); }
    // i32 zero-extends to the whole register; i8/i16 leave the rest.
    void put_gpr(unsigned number, ValueId v);
    // Context offset of register operand i's bytes (AH..BH are at their register + 1).
    std::size_t register_slot(unsigned i) const;

    // --- memory operands
    // Offset part, address-size wide, zero-extended to i64.
    ValueId effective_address(unsigned i);
    // The same modulo the width of t, which is no wider than addresses are.
    ValueId address_sum(unsigned i, Type t, std::int64_t displacement = 0, ValueId byte_index = none);
    // Linear address of memory operand i, plus `displacement`, checked for an access of `bytes` where segments matter.
    // A helper (may fault) in non-flat modes.
    ValueId address(unsigned i, unsigned bytes, bool write, std::int64_t displacement = 0);
    ValueId load(unsigned i, Type t, std::uint8_t attributes = 0);
    void store(unsigned i, Type t, ValueId v, std::uint8_t attributes = 0);
    // Like address, with a byte offset (i64) added to the effective address.
    ValueId address_indexed(unsigned i, ValueId byte_index, unsigned bytes, bool write);
    // A rmw_* or cmpxchg op on memory operand i; atomic when the instruction has LOCK. Result: the old value.
    ValueId rmw(unsigned i, Opcode op, Type t, ValueId v, bool sets_flags = true, ValueId v2 = none);
    // The same with the address at hand.
    ValueId rmw_at(ValueId linear_address, unsigned i, Opcode op, Type t, ValueId v, bool sets_flags = true,
                   ValueId v2 = none);
    // Base register of memory operand i for Inst::base_hint.
    std::uint8_t base_hint(unsigned i) const;
    // Segment register memory operand i uses, overrides applied.
    vmm::x86::Seg segment(unsigned i) const;
    // Segment of the implicit operand at rSI, rBX (XLAT), rAX (MONITOR): DS unless overridden.
    vmm::x86::Seg data_segment() const;
    // REX.W is present.
    bool wide_operand() const { return d.insn.raw.rex.W; }
    // Linear address of `offset` (i64) in segment s.
    ValueId linear(vmm::x86::Seg s, ValueId offset, unsigned bytes, bool write);

    // --- vector registers and operands: Type::v128/v256 whole registers, i32/i64 their low parts
    ValueId xmm(Type t, unsigned number) { return b.get(t, slot::xmm(number)); }
    // Register or memory operand with type t; `attributes` apply to memory (mem_aligned).
    ValueId read_vector(unsigned i, Type t, std::uint8_t attributes = 0);
    // Writes the register's low size_of(t) bytes; with `zero_upper` (VEX forms) everything above up to bit 255 too.
    void put_xmm(unsigned number, ValueId v, bool zero_upper);

    // --- stack
    Type stack_type() const { return ir::int_type(mode.stack_bytes()); }
    // Linear address of stack pointer + displacement.
    ValueId stack_address(std::int64_t displacement, unsigned bytes, bool write);
    // Stack pointer += delta (stack width).
    void adjust_stack(std::int64_t delta);
    void push(ValueId v);
    // Stores at the stack pointer + displacement, which stays.
    void stack_store(ValueId v, std::int64_t displacement);
    // Loads from the stack top; the caller adjusts the stack pointer once nothing can fault.
    ValueId stack_load(Type t, std::int64_t displacement = 0);

    // --- helpers
    ValueId call(HelperId id, ValueId a = none, ValueId b2 = none, ValueId c = none) {
        return b.call(std::uint16_t(id), a, b2, c);
    }
    ValueId constant(std::int64_t v, Type t = Type::i64) { return b.constant(t, v); }
    // A helper with the X trait: the next instruction's address goes to slot::rip first, the block ends after it.
    // Returns true.
    bool call_and_end(HelperId id, ValueId a = none, ValueId b2 = none, ValueId c = none);

    // --- ways out
    // Not an instruction here: #UD. Return its value.
    bool undefined() { return false; }
    // Raises an exception at this instruction and ends the block; returns true.
    bool raise(std::uint8_t vector) { return raise_with(vector, -1); }
    bool raise(std::uint8_t vector, std::uint32_t error) { return raise_with(vector, error); }
    // Ends the block with this terminal.
    void end(ir::Terminal t) { terminal_ = t; }
    bool ended() const { return terminal_.has_value(); }
    ir::Terminal const& terminal() const { return *terminal_; }
    void reset_end() { terminal_.reset(); }
    // Guest address (value of the instruction pointer, truncated to the mode's width) of in-page offset `offset`, i64.
    ValueId guest_pc(std::int32_t offset);

private:
    bool raise_with(std::uint8_t vector, std::int64_t error);
    ValueId effective_address(unsigned i, std::int64_t displacement, ValueId byte_index);

    std::optional<ir::Terminal> terminal_;
};

// Families that have their own files. Each returns false for #UD (also for a mnemonic it does not know).
bool lift_vector(Lifter& l); // MMX, SSE, AVX and their control instructions (lift_vector*.cpp)
bool lift_x87(Lifter& l);    // (lift_x87.cpp)

} // namespace vmm::tcg::x86
