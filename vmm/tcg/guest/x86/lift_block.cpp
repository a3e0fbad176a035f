// The driver: decodes instruction after instruction, calls their handlers, decides where the block ends.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/guest/x86/lifter.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace vmm::tcg::x86 {

using Handler = bool (*)(Lifter&);
constexpr unsigned page_size = 4096, longest_instruction = 15;

static Handler handler_of(ZydisDecodedInstruction const& insn) {
    static constexpr auto table = [] {
        std::array<Handler, ZYDIS_MNEMONIC_MAX_VALUE + 1> t{};
#define I(mnemonic, handler) t[ZYDIS_MNEMONIC_##mnemonic] = &handler;
#include "vmm/tcg/guest/x86/instructions.inc"
#undef I
        return t;
    }();
    if (Handler h = table[insn.mnemonic]) return h;
    // By encoding: FCMOVcc, FCOMI and FISTTP count as later extensions.
    bool const x87 =
        insn.opcode_map == ZYDIS_OPCODE_MAP_DEFAULT && ((insn.opcode & 0xf8) == 0xd8 || insn.opcode == 0x9b);
    return x87 ? &lift_x87 : &lift_vector;
}

// The bytes an instruction at `offset` may have: at most 15 and none from a page that is not there.
struct CodeBytes {
    std::array<std::uint8_t, longest_instruction> bytes;
    unsigned count;
};
static CodeBytes fetch(CodeWindow const& code, unsigned offset, bool use_next_page) {
    CodeBytes result{};
    unsigned const here = std::min(longest_instruction, page_size - offset);
    std::memcpy(result.bytes.data(), code.page + offset, here);
    result.count = here;
    if (use_next_page && here < longest_instruction) {
        std::memcpy(result.bytes.data() + here, code.next_page, longest_instruction - here);
        result.count = longest_instruction;
    }
    return result;
}

// Lifts the decoded instruction; on #UD what its handler emitted is dropped.
static void lift_instruction(Lifter& l, DecodeStatus status) {
    ir::Block& block = l.b.block();
    bool const known = status == DecodeStatus::ok;
    std::size_t const mark = block.insts.size();
    l.b.emit({.op = Opcode::insn_start, .aux = std::uint8_t(known ? l.d.insn.length : 1), .imm = l.start});
    if (status == DecodeStatus::too_long) {
        l.raise(vmm::x86::vec::gp, 0);
    } else if (!known || !handler_of(l.d.insn)(l)) {
        block.insts.resize(mark + 1);
        l.reset_end();
        l.raise(vmm::x86::vec::ud);
    }
    ++block.guest_insns;
}

LiftStatus lift_block(Mode mode, vmm::x86::CpuModel const& model, CodeWindow code, LiftLimits limits, ir::Block& out) {
    VMM_ASSERT(code.offset < page_size);
    out.insts.clear(); // their memory stays
    out = {.insts = std::move(out.insts), .terminal = {}};
    out.start = std::int32_t(code.offset);
    out.alone = mode.is(Mode::single);
    Lifter l(mode, model, out);
    Decoder const decoder(mode, model);
    unsigned const max_insns = mode.is(Mode::single) ? 1 : std::max(1u, limits.max_insns);
    unsigned offset = code.offset;
    auto full = [&] { return out.guest_insns >= max_insns || out.insts.size() >= limits.max_ir; };
    // The instruction behind STI belongs to its block: nothing may come between them.
    while (!l.ended() && offset < page_size && (!full() || l.window == std::int32_t(offset))) {
        CodeBytes bytes = fetch(code, offset, false);
        DecodeStatus status = decoder.decode({bytes.bytes.data(), bytes.count}, l.d);
        if (status == DecodeStatus::truncated) {
            if (out.guest_insns) break;
            if (!code.next_page) return LiftStatus::needs_next_page;
            bytes = fetch(code, offset, true);
            status = decoder.decode({bytes.bytes.data(), bytes.count}, l.d);
            if (status == DecodeStatus::truncated) status = DecodeStatus::too_long;
            out.crosses_page = true;
        }
        l.start = std::int32_t(offset);
        lift_instruction(l, status);
        offset += status == DecodeStatus::ok ? l.d.insn.length : bytes.count;
        if (out.crosses_page) break;
    }
    out.guest_bytes = std::uint16_t(offset - code.offset);
    out.terminal = l.ended() ? l.terminal() : ir::Jump{.target = std::int32_t(offset)};
    return LiftStatus::ok;
}

} // namespace vmm::tcg::x86
