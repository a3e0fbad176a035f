// Decoding one x86 instruction: a thin layer over Zydis that adds what hardware does and a disassembler need not.
#pragma once
#include "vmm/tcg/guest/x86/mode.h"

#include <Zydis/Zydis.h>

#include <cstdint>
#include <span>

namespace vmm::x86 {
struct CpuModel;
}

namespace vmm::tcg::x86 {

struct Decoded {
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT_VISIBLE]; // the visible ones

    bool has(ZydisInstructionAttributes attribute) const { return insn.attributes & attribute; }
    bool lock() const { return has(ZYDIS_ATTRIB_HAS_LOCK); }
    bool rep() const { return has(ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE); }
    bool repne() const { return has(ZYDIS_ATTRIB_HAS_REPNE); }
    bool vex() const { return insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX; }
    unsigned operand_bytes() const { return insn.operand_width / 8u; }
    unsigned address_bytes() const { return insn.address_width / 8u; }
};

enum class DecodeStatus : std::uint8_t {
    ok,
    truncated, // the bytes end inside the instruction
    undefined, // #UD
    too_long,  // more than 15 bytes: #GP(0)
};

// Decodes as `mode` and `model`, which must outlive it, understand code.
class Decoder {
public:
    Decoder(Mode mode, vmm::x86::CpuModel const& model);
    // The instruction at the start of `bytes`. Encodings of extensions the model lacks are undefined, LOCK on anything
    // but the lockable memory forms too.
    DecodeStatus decode(std::span<std::uint8_t const> bytes, Decoded& out) const;

private:
    Mode mode_;
    vmm::x86::CpuModel const& model_;
    ZydisDecoder decoder_;
};

// Whether `model` has the extension the decoded instruction belongs to.
bool model_has(vmm::x86::CpuModel const& model, ZydisDecodedInstruction const& insn);

} // namespace vmm::tcg::x86
