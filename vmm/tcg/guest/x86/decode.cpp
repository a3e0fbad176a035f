#include "vmm/tcg/guest/x86/decode.h"

#include "vmm/cpu/x86/cpu_model.h"

namespace vmm::tcg::x86 {

using vmm::x86::Feature;

// Real and v8086 mode have no VEX encodings and none of the 80286's protected-mode instructions (SDM vol. 2 2.3.1).
static bool exists_in_mode(Mode mode, ZydisDecodedInstruction const& insn) {
    if (mode.is(Mode::protected_mode)) return true;
    if (insn.encoding == ZYDIS_INSTRUCTION_ENCODING_VEX) return false;
    switch (insn.mnemonic) {
    case ZYDIS_MNEMONIC_ARPL:
    case ZYDIS_MNEMONIC_LAR:
    case ZYDIS_MNEMONIC_LSL:
    case ZYDIS_MNEMONIC_LLDT:
    case ZYDIS_MNEMONIC_LTR:
    case ZYDIS_MNEMONIC_SLDT:
    case ZYDIS_MNEMONIC_STR:
    case ZYDIS_MNEMONIC_VERR:
    case ZYDIS_MNEMONIC_VERW: return false;
    default: return true;
    }
}

bool model_has(vmm::x86::CpuModel const& model, ZydisDecodedInstruction const& insn) {
    auto has = [&](Feature f) { return model.has(f); };
    switch (insn.meta.isa_set) {
    case ZYDIS_ISA_SET_I86:
    case ZYDIS_ISA_SET_I186:
    case ZYDIS_ISA_SET_I286REAL:
    case ZYDIS_ISA_SET_I286PROTECTED:
    case ZYDIS_ISA_SET_I386:
    case ZYDIS_ISA_SET_I486:
    case ZYDIS_ISA_SET_I486REAL:
    case ZYDIS_ISA_SET_PENTIUMREAL:
    case ZYDIS_ISA_SET_PPRO:
    case ZYDIS_ISA_SET_FAT_NOP:
    case ZYDIS_ISA_SET_PAUSE:
    case ZYDIS_ISA_SET_PREFETCH_NOP:
    case ZYDIS_ISA_SET_PREFETCHWT1:
    case ZYDIS_ISA_SET_RDPMC: return true;
    case ZYDIS_ISA_SET_LONGMODE:
    case ZYDIS_ISA_SET_AMD:
        return insn.mnemonic == ZYDIS_MNEMONIC_SYSCALL || insn.mnemonic == ZYDIS_MNEMONIC_SYSRET ? has(Feature::syscall)
                                                                                                 : true;
    case ZYDIS_ISA_SET_LAHF: return insn.machine_mode != ZYDIS_MACHINE_MODE_LONG_64 || has(Feature::lahf_lm);
    case ZYDIS_ISA_SET_ADOX_ADCX: return has(Feature::adx);
    case ZYDIS_ISA_SET_AES: return has(Feature::aes);
    case ZYDIS_ISA_SET_AVX: return has(Feature::avx);
    case ZYDIS_ISA_SET_AVXAES: return has(Feature::avx) && has(Feature::aes);
    case ZYDIS_ISA_SET_AVX2:
    case ZYDIS_ISA_SET_AVX2GATHER: return has(Feature::avx2);
    case ZYDIS_ISA_SET_BMI1: return has(Feature::bmi1);
    case ZYDIS_ISA_SET_BMI2: return has(Feature::bmi2);
    case ZYDIS_ISA_SET_CLFLUSHOPT: return has(Feature::clflushopt);
    case ZYDIS_ISA_SET_CLFSH: return has(Feature::clflush);
    case ZYDIS_ISA_SET_CLWB: return has(Feature::clwb);
    case ZYDIS_ISA_SET_CMOV:
    case ZYDIS_ISA_SET_FCMOV: return has(Feature::cmov);
    case ZYDIS_ISA_SET_CMPXCHG16B: return has(Feature::cx16);
    case ZYDIS_ISA_SET_F16C: return has(Feature::f16c);
    case ZYDIS_ISA_SET_FMA: return has(Feature::fma);
    case ZYDIS_ISA_SET_FXSAVE:
    case ZYDIS_ISA_SET_FXSAVE64: return has(Feature::fxsr);
    case ZYDIS_ISA_SET_INVPCID: return has(Feature::invpcid);
    case ZYDIS_ISA_SET_LZCNT: return has(Feature::abm);
    case ZYDIS_ISA_SET_MONITOR: return has(Feature::monitor);
    case ZYDIS_ISA_SET_MOVBE: return has(Feature::movbe);
    case ZYDIS_ISA_SET_PCLMULQDQ:
        return has(Feature::pclmulqdq) && (insn.encoding != ZYDIS_INSTRUCTION_ENCODING_VEX || has(Feature::avx));
    case ZYDIS_ISA_SET_PENTIUMMMX: return has(Feature::mmx);
    case ZYDIS_ISA_SET_PKU: return has(Feature::pku);
    case ZYDIS_ISA_SET_POPCNT: return has(Feature::popcnt);
    case ZYDIS_ISA_SET_RDPID: return has(Feature::rdpid);
    case ZYDIS_ISA_SET_RDRAND: return has(Feature::rdrand);
    case ZYDIS_ISA_SET_RDSEED: return has(Feature::rdseed);
    case ZYDIS_ISA_SET_RDTSCP: return has(Feature::rdtscp);
    case ZYDIS_ISA_SET_RDWRFSGS: return has(Feature::fsgsbase);
    case ZYDIS_ISA_SET_SERIALIZE: return has(Feature::serialize);
    case ZYDIS_ISA_SET_SHA: return has(Feature::sha_ni);
    case ZYDIS_ISA_SET_SMAP: return has(Feature::smap);
    case ZYDIS_ISA_SET_SSE:
    case ZYDIS_ISA_SET_SSEMXCSR:
    case ZYDIS_ISA_SET_SSE_PREFETCH: return has(Feature::sse);
    case ZYDIS_ISA_SET_SSE2:
    case ZYDIS_ISA_SET_SSE2MMX: return has(Feature::sse2);
    case ZYDIS_ISA_SET_SSE3:
    case ZYDIS_ISA_SET_SSE3X87: return has(Feature::sse3);
    case ZYDIS_ISA_SET_SSSE3:
    case ZYDIS_ISA_SET_SSSE3MMX: return has(Feature::ssse3);
    case ZYDIS_ISA_SET_SSE4: return has(Feature::sse41);
    case ZYDIS_ISA_SET_SSE42: return has(Feature::sse42);
    case ZYDIS_ISA_SET_SSE4A: return has(Feature::sse4a);
    case ZYDIS_ISA_SET_VAES: return has(Feature::vaes);
    case ZYDIS_ISA_SET_VPCLMULQDQ: return has(Feature::vpclmulqdq);
    case ZYDIS_ISA_SET_X87: return has(Feature::fpu);
    case ZYDIS_ISA_SET_XSAVE: return has(Feature::xsave);
    case ZYDIS_ISA_SET_XSAVEC: return has(Feature::xsavec);
    case ZYDIS_ISA_SET_XSAVEOPT: return has(Feature::xsaveopt);
    case ZYDIS_ISA_SET_XSAVES: return has(Feature::xsaves);
    default: return false;
    }
}

Decoder::Decoder(Mode mode, vmm::x86::CpuModel const& model) : mode_(mode), model_(model) {
    if (mode.is64())
        ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    else
        ZydisDecoderInit(&decoder_,
                         mode.code_bytes() == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32 : ZYDIS_MACHINE_MODE_LEGACY_16,
                         mode.is(Mode::stack32) ? ZYDIS_STACK_WIDTH_32 : ZYDIS_STACK_WIDTH_16);
    // Encodings that mean something older where the extension is missing.
    auto set = [&](ZydisDecoderMode m, bool on) { ZydisDecoderEnableMode(&decoder_, m, on); };
    set(ZYDIS_DECODER_MODE_MPX, false);
    set(ZYDIS_DECODER_MODE_CET, false);
    set(ZYDIS_DECODER_MODE_CLDEMOTE, false);
    set(ZYDIS_DECODER_MODE_LZCNT, model.has(Feature::abm));
    set(ZYDIS_DECODER_MODE_TZCNT, model.has(Feature::bmi1));
    set(ZYDIS_DECODER_MODE_WBNOINVD, model.has(Feature::wbnoinvd));
}

DecodeStatus Decoder::decode(std::span<std::uint8_t const> bytes, Decoded& out) const {
    ZydisDecoderContext context;
    ZyanStatus status = ZydisDecoderDecodeInstruction(&decoder_, &context, bytes.data(), bytes.size(), &out.insn);
    if (status == ZYDIS_STATUS_NO_MORE_DATA) return DecodeStatus::truncated;
    if (status == ZYDIS_STATUS_INSTRUCTION_TOO_LONG) return DecodeStatus::too_long;
    if (!ZYAN_SUCCESS(status)) return DecodeStatus::undefined;
    if (!exists_in_mode(mode_, out.insn) || !model_has(model_, out.insn)) return DecodeStatus::undefined;
    status = ZydisDecoderDecodeOperands(&decoder_, &context, &out.insn, out.operands, out.insn.operand_count_visible);
    return ZYAN_SUCCESS(status) ? DecodeStatus::ok : DecodeStatus::undefined;
}

} // namespace vmm::tcg::x86
