#include "tests/diff/sample.h"

#include <Zydis/Zydis.h>
#include <fmt/core.h>

#include <cstring>
#include <string_view>

namespace vmm::diff {

namespace {

// The instruction that the run ended at, null when it came to the end.
Sequence::Instruction const* ended_at(Sequence const& s, Outcome const& outcome) {
    std::uint64_t start = code_base + s.code_offset;
    for (auto const& insn : s.instructions)
        if (outcome.vector != 3 && start + insn.offset == outcome.registers.rip) return &insn;
    return nullptr;
}

// A near return to an address that is not canonical: Intel's CPUs fault at the return, AMD's and our engines at its
// target. Whether that is all that differs about where the two ended.
bool returned_to_no_address(Sequence const& s, Outcome const& host, Outcome const& ours) {
    Sequence::Instruction const* at = ended_at(s, host);
    constexpr int general_protection = 13;
    constexpr std::uint8_t ret = 0xc3, ret_and_release = 0xc2;
    std::uint64_t const target = ours.registers.rip;
    if (!at || host.vector != general_protection || ours.vector != general_protection ||
        target + (1ull << 47) < 1ull << 48)
        return false;
    std::uint8_t const* code = &s.code[at->offset + at->length];
    unsigned release = 8;
    if (at->length >= 3 && code[-3] == ret_and_release)
        release += code[-2] | unsigned(code[-1]) << 8;
    else if (code[-1] != ret)
        return false;
    return ours.registers.gpr[4] == host.registers.gpr[4] + release;
}

void bytes(std::string& text, char const* name, std::uint64_t base, std::uint8_t const* e, std::uint8_t const* a,
           std::size_t size) {
    if (std::memcmp(e, a, size) == 0) return;
    int shown = 0;
    for (std::size_t i = 0; i < size && shown < 16; ++i)
        if (e[i] != a[i])
            text += fmt::format("  {} {:#x}: expected {:02x}, got {:02x}\n", name, base + i, e[i], a[i]), ++shown;
}

} // namespace

bool track_flags(Sequence& s) {
    auto& list = s.instructions;
    for (auto& insn : list) insn.undefined_before = 0;
    s.undefined_at_end = 0;
    auto into = [&](std::size_t index, std::uint64_t flags) {
        std::uint64_t& at = index < list.size() ? list[index].undefined_before : s.undefined_at_end;
        bool grew = flags & ~at;
        at |= flags;
        return grew;
    };
    for (bool changed = true; changed;) {
        changed = false;
        for (std::size_t i = 0; i < list.size(); ++i) {
            auto const& insn = list[i];
            std::uint64_t after = insn.undefined_before;
            if (!insn.dropped) {
                if (insn.tested & after) return false;
                after = (after & ~insn.defined) | insn.undefined;
                if (insn.target >= 0) changed |= into(std::size_t(insn.target), after) && unsigned(insn.target) <= i;
            }
            if (insn.falls_through || insn.dropped) into(i + 1, after);
        }
    }
    return true;
}

std::string compare(Sequence const& s, Outcome const& e, Outcome const& a) {
    static constexpr char const* names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                            "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static constexpr char const* stack_names[] = {"st0", "st1", "st2", "st3", "st4", "st5", "st6", "st7"};
    std::string text;
    // Whether an unmasked overflow or underflow is inexact too is not looked into: CPUs stop at the exception, our
    // engines compute the masked result.
    constexpr int simd_exception = 19;
    constexpr std::uint32_t out_of_range = 0x18, inexact = 0x20;
    std::uint32_t const unmasked = e.registers.mxcsr & ~(e.registers.mxcsr >> 7) & out_of_range;
    std::uint32_t const mxcsr_bits = e.vector == simd_exception && unmasked ? ~inexact : ~0u;
    auto field = [&](std::string_view name, std::uint64_t x, std::uint64_t y) {
        if (x != y) text += fmt::format("  {}: expected {:#x}, got {:#x}\n", name, x, y);
    };
    field("vector", std::uint64_t(e.vector), std::uint64_t(a.vector));
    bool const same_place = returned_to_no_address(s, e, a);
    if (!same_place) field("rip", e.registers.rip, a.registers.rip);
    if (e.vector == a.vector && e.vector == 14) {
        // Whether a page of the host's kernel, or another one of its process, is present is not ours to say.
        auto within = [&](std::uint64_t base, std::uint64_t size) { return e.address - base < size; };
        bool const ours =
            within(code_base, code_size) || within(data_base, data_size) || within(stack_base, stack_size);
        std::uint64_t bits = ours ? 7 : 6;
        field("error code", e.error & bits, a.error & bits);
        field("fault address", e.address, a.address);
    }
    for (unsigned i = 0; i < 16; ++i)
        if (i != 4 || !same_place) field(names[i], e.registers.gpr[i], a.registers.gpr[i]);
    Sequence::Instruction const* at = ended_at(s, e);
    constexpr std::uint64_t defined_flags = 0x244cd5; // ID, AC, NT and the arithmetic ones
    std::uint64_t undefined = at ? at->undefined_before : s.undefined_at_end;
    bool const at_end = e.vector == 3 && e.registers.rip == code_base + s.code_offset + s.code.size();
    if (!at && !at_end) // a call went astray, perhaps to the INT3s around: from where is not known
        for (auto const& insn : s.instructions) undefined |= insn.undefined_before;
    std::uint64_t flags = defined_flags & ~undefined;
    field("rflags", e.registers.rflags & flags, a.registers.rflags & flags);
    for (unsigned i = 0; i < 16; ++i)
        for (unsigned k = 0; k < 4 && e.registers.ymm[i] != a.registers.ymm[i]; ++k)
            field(fmt::format("ymm{}[{}]", i, k), e.registers.ymm[i][k], a.registers.ymm[i][k]);
    field("mxcsr", e.registers.mxcsr & mxcsr_bits, a.registers.mxcsr & mxcsr_bits);
    field("fcw", e.registers.fcw, a.registers.fcw);
    field("fop", e.registers.fop, a.registers.fop);
    field("fip", e.registers.fip, a.registers.fip);
    field("fdp", e.registers.fdp, a.registers.fdp);
    bool const stack_defined = !at || !at->mmx;
    std::uint16_t const fsw_mask = stack_defined ? 0xffff : 0xc7ff;
    field("fsw", e.registers.fsw & fsw_mask, a.registers.fsw & fsw_mask);
    if (stack_defined) field("tags", e.registers.tags, a.registers.tags);
    for (unsigned i = 0; i < 8 && stack_defined; ++i)
        bytes(text, stack_names[i], 0, e.registers.st[i].data(), a.registers.st[i].data(), 10);
    bytes(text, "data", data_base, e.data.data(), a.data.data(), data_size);
    bytes(text, "stack", stack_base, e.stack.data(), a.stack.data(), stack_size);
    return text;
}

std::string describe(Sequence const& s) {
    std::string text = fmt::format("seed {}\n", s.seed);
    for (unsigned i = 0; i < 16; ++i) text += fmt::format("r{}={:#x}{}", i, s.start.gpr[i], i % 4 == 3 ? "\n" : " ");
    text += fmt::format("rflags={:#x} mxcsr={:#x} fcw={:#x} fsw={:#x} tags={:#x}\n", s.start.rflags, s.start.mxcsr,
                        s.start.fcw, s.start.fsw, s.start.tags);
    std::uint64_t at = code_base + s.code_offset;
    for (auto const& insn : s.instructions) {
        if (insn.dropped) continue;
        ZydisDisassembledInstruction decoded;
        bool ok = ZYAN_SUCCESS(ZydisDisassembleIntel(
            s.long_mode ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32, at + insn.offset,
            s.code.data() + insn.offset, s.code.size() - insn.offset, &decoded));
        std::string raw;
        for (unsigned i = 0; i < insn.length; ++i) raw += fmt::format("{:02x}", s.code[insn.offset + i]);
        text += fmt::format("  {:#x}: {:32} {}\n", at + insn.offset, raw, ok ? decoded.text : "(bad)");
    }
    return text;
}

} // namespace vmm::diff
