// Assembler: xbyak over the code cache, with what the code generator adds: typed registers, jumps patched later, cold
// code, and VEX encodings by table.
#pragma once
#include "vmm/tcg/ir/ir.h"
#include "vmm/tcg/ir/vec_ops.h"
#include "vmm/tcg/x64/code_cache.h"

#include <xbyak/xbyak.h>

#include <array>
#include <cstdint>

namespace vmm::tcg::x64 {

// Host general registers by number.
namespace host {
enum : int { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15, count };
}

// Code made once and copied often: encoding it anew costs ten times as much.
struct Snippet {
    std::uint8_t const* code = nullptr; // in the writable view
    std::size_t bytes = 0;
};

// A place in the code whose rel32 field is filled in later.
struct Fixup {
    std::uint8_t* field = nullptr; // in the writable view
};

class Assembler : public Xbyak::CodeGenerator {
public:
    explicit Assembler(CodeCache& cache) : CodeGenerator(cache.size(), cache.writable()), cache_(cache) {}

    static Xbyak::Reg reg(ir::Type t, int index) {
        switch (t) {
        case ir::Type::i8: return Xbyak::Reg8(index, index >= 4 && index < 8);
        case ir::Type::i16: return Xbyak::Reg16(index);
        case ir::Type::i32: return Xbyak::Reg32(index);
        default: return Xbyak::Reg64(index);
        }
    }
    static Xbyak::Reg64 r64(int index) { return Xbyak::Reg64(index); }
    static Xbyak::Reg32 r32(int index) { return Xbyak::Reg32(index); }
    static Xbyak::Reg8 r8b(int index) { return Xbyak::Reg8(index, index >= 4 && index < 8); }
    Xbyak::Address sized(ir::Type t, Xbyak::RegExp const& e) {
        switch (t) {
        case ir::Type::i8: return byte[e];
        case ir::Type::i16: return word[e];
        case ir::Type::i32: return dword[e];
        default: return qword[e];
        }
    }

    std::uint8_t const* executable(void const* in_writable) const { return cache_.executable(in_writable); }
    std::uint8_t* here() { return const_cast<std::uint8_t*>(getCurr()); }
    void copy(Snippet const& s) {
        setSize(getSize() + s.bytes); // throws when that is too much
        __builtin_memcpy(here() - s.bytes, s.code, s.bytes);
    }
    Fixup jump_if(ir::Cond cc) {
        std::uint8_t const code[6] = {0x0f, std::uint8_t(0x80 + int(cc))};
        copy({code, sizeof code});
        return {here() - 4};
    }
    Fixup jump() { return jump_by(0xe9); }
    static void bind(Fixup f, std::uint8_t const* to) {
        std::int32_t rel = std::int32_t(to - (f.field + 4));
        __builtin_memcpy(f.field, &rel, 4);
    }
    void bind(Fixup f) { bind(f, here()); }
    void jump_to(std::uint8_t const* to) { bind(jump(), to); }
    void jump_if_to(ir::Cond cc, std::uint8_t const* to) { bind(jump_if(cc), to); }
    void call_to(std::uint8_t const* to) { bind(jump_by(0xe8), to); }
    // Calls a C++ function through rax, or directly when it is near.
    void call_function(void const* function) {
        mov(rax, reinterpret_cast<std::uint64_t>(function));
        call(rax);
    }
    void load_constant(int r, std::int64_t v) {
        if (std::uint64_t(v) <= 0xffffffff) { // not xor for 0: flags stay
            Code code(*this);
            if (r >= 8) code.add(0x41);
            code.add(0xb8 + unsigned(r & 7)), code.add_word(std::uint32_t(v));
            code.finish();
        } else
            mov(r64(r), v);
    }

    // What most code is made of, as xbyak encodes it but in a fraction of its time.
    using CodeGenerator::add, CodeGenerator::and_, CodeGenerator::cmp, CodeGenerator::lea, CodeGenerator::mov,
        CodeGenerator::or_, CodeGenerator::sub, CodeGenerator::test, CodeGenerator::xor_;
    using Reg = Xbyak::Reg;
    using Address = Xbyak::Address;
    void mov(Reg const& d, Reg const& s) { registers(0x88, s, d); }
    void mov(Reg const& d, Address const& s) {
        if (!memory(0x8a, d, s)) CodeGenerator::mov(d, s);
    }
    void mov(Address const& d, Reg const& s) {
        if (!memory(0x88, s, d)) CodeGenerator::mov(d, s);
    }
    void lea(Reg const& d, Address const& s) {
        if (!memory(0x8c, d, s)) CodeGenerator::lea(d, s);
    }
    // lea d, [base + index << shift + displacement]; `index`: -1 for none.
    void lea(int d, int base, int index, int shift, std::int32_t displacement);
    void test(Reg const& d, Reg const& s) { registers(0x84, s, d); }
#define VMM_X64_ALU(name, number)                                                                                      \
    void name(Reg const& d, Reg const& s) { registers(number * 8, s, d); }                                             \
    void name(Reg const& d, Address const& s) {                                                                        \
        if (!memory(number * 8 + 2, d, s)) CodeGenerator::name(d, s);                                                  \
    }                                                                                                                  \
    void name(Reg const& d, std::uint32_t imm) {                                                                       \
        if (!immediate(number, d, imm)) CodeGenerator::name(d, imm);                                                   \
    }
    VMM_X64_ALU(add, 0)
    VMM_X64_ALU(or_, 1)
    VMM_X64_ALU(and_, 4)
    VMM_X64_ALU(sub, 5)
    VMM_X64_ALU(xor_, 6)
    VMM_X64_ALU(cmp, 7)
#undef VMM_X64_ALU
    // rorx d, s, count of 32 bits.
    void rotate_right(int d, int s, unsigned count);

    // The rm operand of a vector instruction: a register, or memory at base + displacement (and an index of scale 1).
    struct Rm {
        bool memory = false;
        int reg = 0; // or base
        int index = -1;
        std::int32_t displacement = 0;
    };
    static Rm in_register(int r) { return {.reg = r}; }
    static Rm in_memory(int base, std::int32_t displacement, int index = -1) {
        return {.memory = true, .reg = base, .index = index, .displacement = displacement};
    }
    // VEX: reg, vvvv (0 when unused), rm; `wide`: VEX.L.
    void vex(ir::VecPrefix prefix, ir::VecMap map, std::uint8_t opcode, bool w, bool wide, int reg_field, int vvvv,
             Rm rm);
    // Legacy SSE: mandatory prefix, 0F map.
    void legacy(ir::VecPrefix prefix, ir::VecMap map, std::uint8_t opcode, bool w, int reg_field, Rm rm);
    // Unaligned vector moves of 4, 8, 16 or 32 bytes.
    void vector_load(unsigned bytes, int xmm_index, Rm from);
    void vector_store(unsigned bytes, Rm to, int xmm_index);

private:
    Fixup jump_by(std::uint8_t opcode) {
        std::uint8_t const code[5] = {opcode};
        copy({code, sizeof code});
        return {here() - 4};
    }
    // An instruction being put together where it belongs; longest_instruction bytes are there for it.
    class Code {
    public:
        explicit Code(Assembler& as) : as_(as), at_(as.top_ + as.size_) {
            VMM_ASSERT(as.maxSize_ - as.size_ >= longest_instruction);
        }
        void add(unsigned byte) { *at_++ = std::uint8_t(byte); }
        void add_word(std::uint32_t word) {
            __builtin_memcpy(at_, &word, 4);
            at_ += 4;
        }
        void finish() { as_.size_ = std::size_t(at_ - as_.top_); }

    private:
        Assembler& as_;
        std::uint8_t* at_;
    };
    static constexpr std::size_t longest_instruction = 16;
    static void prefixes(Code& code, Reg const& reg, unsigned rex_bits, bool rex);
    // Without a size bit in `opcode`: that of 8 bits. False: nothing was emitted, for this form is not a common one.
    bool memory(unsigned opcode, Reg const& reg, Address const& rm);
    static void address(Code& code, int reg, int base, int index, int shift, std::int32_t displacement);
    void registers(unsigned opcode, Reg const& reg, Reg const& rm);
    bool immediate(unsigned operation, Reg const& reg, std::uint32_t imm);
    void modrm(int reg_field, Rm rm);
    CodeCache& cache_;
};

} // namespace vmm::tcg::x64
