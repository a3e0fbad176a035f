// FlagState: where the condition codes are at one point of translated code, and how they get into the context from
// there: by emitted code, or in C++ where the guest seldom comes by.
#pragma once
#include "vmm/tcg/context.h"
#include "vmm/tcg/ir/ir.h"
#include "vmm/tcg/x64/assembler.h"

#include <cstdint>

namespace vmm::tcg::x64 {

// The condition codes' places. At least one is good while anything may look at them.
struct Recipe { // an instruction that would set them again
    // shifted: by a constant other than 1, with the result x; only the carry must be kept, see FlagState.
    enum Kind : std::uint8_t { none, add, sub, cmp, logic, test, neg, shifted } kind = none;
    ir::Type type = ir::Type::i64;
    std::int8_t x = -1, y = -1; // registers; y < 0: imm, or
    std::int32_t slot = -1;     // the context's content there
    std::int64_t imm = 0;
    bool uses(int r) const { return kind != none && (x == r || y == r); }
    bool operator==(Recipe const&) const = default;
};
struct FlagState {
    bool rflags = false; // in RFLAGS
    bool memory = true;  // in the context
    bool lahf = false;   // ... where store_raw put them
    bool carry = false;  // a `shifted` recipe finds the carry at frame::shift_carry
    Recipe recipe;
    bool has_recipe() const { return recipe.kind != Recipe::none && (recipe.kind != Recipe::shifted || carry); }
    bool operator==(FlagState const&) const = default;
};

// What a rare way out of a block passes in a register: how to find the condition codes and, for memory accesses, the
// access itself.
struct ExitWord {
    enum class Flags : std::uint8_t { stored, saved, rflags, recipe }; // saved: a lahf image at frame::flags
    Flags flags = Flags::stored;
    Recipe recipe;
    unsigned log2_bytes = 0;
    std::int32_t offset = 0; // in-page offset of the instruction

    std::uint64_t pack() const;
    static ExitWord unpack(std::uint64_t word);
    static unsigned access_bytes(std::uint64_t word) { return 1u << (word & 7); }
    static std::int32_t access_offset(std::uint64_t word) { return std::int32_t(word) >> 19; }
};
ExitWord exit_word(FlagState const& state);

// Emitted code that stores the condition codes into the context. They keep RFLAGS (but a `test` recipe does not) and
// all registers; frame::keep0 is used.
void emit_store_recipe(Assembler& as, Recipe const& r);
// `keep`: a register that may change, or -1.
void emit_store_rflags(Assembler& as, int keep);
void emit_store(Assembler& as, ExitWord const& word);

// The same in C++: the guest leaves a block with its general registers at frame::registers.
extern "C" void vmm_x64_store_flags(EngineContext& e, std::uint64_t word, std::uint8_t const* frame,
                                    std::uint64_t rflags);

} // namespace vmm::tcg::x64
