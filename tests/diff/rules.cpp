#include "tests/diff/rules.h"

namespace vmm::diff {

namespace {

bool uses_mmx(ZydisDecodedInstruction const& d, ZydisDecodedOperand const* operands) {
    for (unsigned i = 0; i < d.operand_count; ++i)
        if (operands[i].type == ZYDIS_OPERAND_TYPE_REGISTER &&
            ZydisRegisterGetClass(operands[i].reg.value) == ZYDIS_REGCLASS_MMX)
            return true;
    return false;
}

// Shifts by 0 and repetitions of 0 elements change no flag.
bool may_leave_flags(ZydisDecodedInstruction const& d) {
    if (d.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) return true;
    switch (d.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD:
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return true;
    default: return false;
    }
}

// Shifts by a count that is not known to be 0 or 1 leave flags undefined that a count of 0 keeps.
std::uint64_t also_undefined(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return 0x811; // OF, AF; CF for counts beyond the width
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return 0x800;
    default: return 0;
    }
}

} // namespace

bool allowed(ZydisDecodedInstruction const& d) {
    if (d.mnemonic == ZYDIS_MNEMONIC_XRSTOR || d.mnemonic == ZYDIS_MNEMONIC_XRSTOR64) return true;
    switch (d.meta.category) {
    case ZYDIS_CATEGORY_SYSTEM:
    case ZYDIS_CATEGORY_SYSCALL:
    case ZYDIS_CATEGORY_SYSRET:
    case ZYDIS_CATEGORY_INTERRUPT:
    case ZYDIS_CATEGORY_IO:
    case ZYDIS_CATEGORY_IOSTRINGOP:
    case ZYDIS_CATEGORY_XSAVE:
    case ZYDIS_CATEGORY_XSAVEOPT:
    case ZYDIS_CATEGORY_RDRAND:
    case ZYDIS_CATEGORY_RDSEED:
    case ZYDIS_CATEGORY_RDWRFSGS:
    case ZYDIS_CATEGORY_VTX:
    case ZYDIS_CATEGORY_UNCOND_BR:
    case ZYDIS_CATEGORY_RET:
    case ZYDIS_CATEGORY_CET:
    case ZYDIS_CATEGORY_KMASK:
    case ZYDIS_CATEGORY_AVX512:
    case ZYDIS_CATEGORY_SEGOP: return false;
    default: break;
    }
    if (d.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || d.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
        d.encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW || d.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX)
        return false;
    switch (d.meta.isa_set) {
    // What the host may have and none of our CPU models offers.
    case ZYDIS_ISA_SET_AMX_BF16:
    case ZYDIS_ISA_SET_AMX_INT8:
    case ZYDIS_ISA_SET_AMX_TILE:
    case ZYDIS_ISA_SET_PKU:
    case ZYDIS_ISA_SET_SERIALIZE:
    case ZYDIS_ISA_SET_TSX_LDTRK:
    case ZYDIS_ISA_SET_UINTR:
    case ZYDIS_ISA_SET_KEYLOCKER:
    case ZYDIS_ISA_SET_HRESET:
    case ZYDIS_ISA_SET_PT:
    case ZYDIS_ISA_SET_GFNI:
    case ZYDIS_ISA_SET_AVX_GFNI:
    case ZYDIS_ISA_SET_VAES:
    case ZYDIS_ISA_SET_VPCLMULQDQ:
    case ZYDIS_ISA_SET_AVX_VNNI:
    case ZYDIS_ISA_SET_FMA4:
    case ZYDIS_ISA_SET_SSE4A:
    case ZYDIS_ISA_SET_XSAVEC:
    case ZYDIS_ISA_SET_XSAVES:
    case ZYDIS_ISA_SET_RDPID:
    case ZYDIS_ISA_SET_MOVDIR:
    case ZYDIS_ISA_SET_WAITPKG:
    case ZYDIS_ISA_SET_ENQCMD:
    case ZYDIS_ISA_SET_CLDEMOTE:
    case ZYDIS_ISA_SET_PREFETCHWT1: return false;
    default: break;
    }
    switch (d.mnemonic) {
    case ZYDIS_MNEMONIC_CPUID:
    case ZYDIS_MNEMONIC_RDTSC:
    case ZYDIS_MNEMONIC_HLT:
    case ZYDIS_MNEMONIC_POPA: // the pointer registers
    case ZYDIS_MNEMONIC_POPAD: return false;
    // To addresses that are not canonical: the fault belongs to the branch on some CPUs, to its target on others.
    case ZYDIS_MNEMONIC_CALL: return d.raw.imm[0].size != 0;
    default: return true;
    }
}

// Results undefined for some operand values, and writes to registers the sequence lives on.
bool operands_allowed(ZydisDecodedInstruction const& d, ZydisDecodedOperand const* operands, unsigned kept) {
    for (unsigned i = 0; i < d.operand_count; ++i) {
        ZydisDecodedOperand const& o = operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.segment != ZYDIS_REGISTER_DS &&
            o.mem.segment != ZYDIS_REGISTER_SS && o.mem.segment != ZYDIS_REGISTER_ES)
            return false;
        if (o.type != ZYDIS_OPERAND_TYPE_REGISTER || !(o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) continue;
        // The host's descriptor tables are not ours.
        if (ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_SEGMENT) return false;
        ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o.reg.value);
        if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15) continue;
        if (kept >> unsigned(whole - ZYDIS_REGISTER_RAX) & 1) return false;
        if (whole == ZYDIS_REGISTER_RSP && o.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) return false;
    }
    // With 32-bit addresses in 64-bit code: which registers are zero-extended when the first element faults differs
    // from one string operation to the next.
    bool const repeated = d.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE);
    if (repeated && d.machine_mode == ZYDIS_MACHINE_MODE_LONG_64 && d.address_width == 32) return false;
    if (d.mnemonic == ZYDIS_MNEMONIC_BSF || d.mnemonic == ZYDIS_MNEMONIC_BSR) return d.operand_width != 16;
    if ((d.mnemonic == ZYDIS_MNEMONIC_SHLD || d.mnemonic == ZYDIS_MNEMONIC_SHRD ||
         d.mnemonic == ZYDIS_MNEMONIC_BSWAP) &&
        d.operand_width == 16)
        return false;
    return true;
}

bool is_horizontal(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_HADDPS:
    case ZYDIS_MNEMONIC_HADDPD:
    case ZYDIS_MNEMONIC_HSUBPS:
    case ZYDIS_MNEMONIC_HSUBPD:
    case ZYDIS_MNEMONIC_VHADDPS:
    case ZYDIS_MNEMONIC_VHADDPD:
    case ZYDIS_MNEMONIC_VHSUBPS:
    case ZYDIS_MNEMONIC_VHSUBPD:
    case ZYDIS_MNEMONIC_DPPS:
    case ZYDIS_MNEMONIC_DPPD:
    case ZYDIS_MNEMONIC_VDPPS:
    case ZYDIS_MNEMONIC_VDPPD: return true;
    default: return false;
    }
}

bool checks_alignment_its_way(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_FXSAVE:
    case ZYDIS_MNEMONIC_FXSAVE64:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64: return true;
    default: return false;
    }
}

bool loads_mxcsr(ZydisMnemonic mnemonic) {
    switch (mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR:
    case ZYDIS_MNEMONIC_FXRSTOR:
    case ZYDIS_MNEMONIC_FXRSTOR64:
    case ZYDIS_MNEMONIC_XRSTOR:
    case ZYDIS_MNEMONIC_XRSTOR64: return true;
    default: return false;
    }
}

Sequence::Instruction effects(ZydisDecodedInstruction const& d, ZydisDecodedOperand const* operands) {
    auto const& flags = *d.cpu_flags;
    std::uint64_t const undefined = flags.undefined & arithmetic_flags;
    std::uint64_t const written = (flags.modified | flags.set_0 | flags.set_1) & arithmetic_flags;
    return {.tested = flags.tested & arithmetic_flags,
            .defined = may_leave_flags(d) ? 0 : written & ~undefined,
            .undefined = undefined | also_undefined(d.mnemonic),
            .mmx = uses_mmx(d, operands)};
}

} // namespace vmm::diff
