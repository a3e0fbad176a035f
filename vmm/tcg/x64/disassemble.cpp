#include "vmm/tcg/x64/disassemble.h"

#include <Zydis/Zydis.h>
#include <fmt/core.h>

namespace vmm::tcg::x64 {

std::string disassemble(std::span<std::uint8_t const> code, std::uint64_t address) {
    std::string text;
    for (std::size_t at = 0; at < code.size();) {
        ZydisDisassembledInstruction insn;
        if (!ZYAN_SUCCESS(ZydisDisassembleIntel(ZYDIS_MACHINE_MODE_LONG_64, address + at, code.data() + at,
                                                code.size() - at, &insn))) {
            text += fmt::format("{:#x}  ?\n", address + at);
            break;
        }
        text += fmt::format("{:#x}  {}\n", address + at, insn.text);
        at += insn.info.length;
    }
    return text;
}

} // namespace vmm::tcg::x64
