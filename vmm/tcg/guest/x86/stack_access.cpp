#include "vmm/tcg/guest/x86/stack_access.h"

#include "vmm/tcg/guest/x86/mmu.h"
#include "vmm/tcg/guest/x86/system.h"

#include <Zydis/Zydis.h>

#include <array>

namespace vmm::tcg::x86 {

namespace {

constexpr unsigned longest_instruction = 15;
// An access reported within this distance of an operand's address is that operand's.
constexpr std::uint64_t reach = 4096;

std::uint64_t register_value(State const& s, ZydisRegister r) {
    ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, r);
    if (whole < ZYDIS_REGISTER_RAX || whole > ZYDIS_REGISTER_R15) return 0;
    return s.gpr[std::size_t(whole - ZYDIS_REGISTER_RAX)];
}

bool near_operand(State const& s, ZydisDecodedOperandMem const& m, std::uint64_t va) {
    std::uint64_t at = register_value(s, m.base) + std::uint64_t(m.disp.value);
    if (m.index != ZYDIS_REGISTER_NONE) at += register_value(s, m.index) * m.scale;
    return va - at + reach <= 2 * reach;
}

// These reach far from their one memory operand, by a bit number in a register.
bool tests_bits(ZydisMnemonic m) {
    return m == ZYDIS_MNEMONIC_BT || m == ZYDIS_MNEMONIC_BTS || m == ZYDIS_MNEMONIC_BTR || m == ZYDIS_MNEMONIC_BTC;
}

} // namespace

bool is_stack_access(X86Context& c, std::uint64_t va) {
    State const& s = c.state;
    if (!s.code64() || !is_canonical(s, s.rip)) return false;
    std::array<std::uint8_t, longest_instruction> bytes{};
    for (unsigned i = 0; i < bytes.size(); ++i)
        if (!c.mmu->debug_access(s.rip + i, {&bytes[i], 1}, false)) break;
    ZydisDecoder decoder;
    ZydisDecodedInstruction insn;
    ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
    ZydisDecoderInit(&decoder, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, bytes.data(), bytes.size(), &insn, operands))) return false;
    if (insn.mnemonic == ZYDIS_MNEMONIC_ENTER || insn.mnemonic == ZYDIS_MNEMONIC_LEAVE) return true;
    for (unsigned i = 0; i < insn.operand_count; ++i) {
        ZydisDecodedOperand const& o = operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.segment == ZYDIS_REGISTER_SS &&
            (tests_bits(insn.mnemonic) || near_operand(s, o.mem, va)))
            return true;
    }
    return false;
}

} // namespace vmm::tcg::x86
