#include "vmm/tcg/guest/x86/ir_names.h"

#include "vmm/tcg/guest/x86/context.h"

#include <fmt/core.h>

#include <charconv>

namespace vmm::tcg::x86 {
namespace {

constexpr std::string_view helper_names[] = {
#define HELPER(name, traits) #name,
#include "vmm/tcg/guest/x86/helpers_fp.inc"
#include "vmm/tcg/guest/x86/helpers_integer.inc"
#include "vmm/tcg/guest/x86/helpers_system.inc"
#undef HELPER
};

struct NamedSlot {
    std::string name;
    std::int64_t offset;
    unsigned bytes;
};

std::vector<NamedSlot> named_slots() {
    static constexpr char const* gpr_names[] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                                "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
    static constexpr char const* segment_names[] = {"es", "cs", "ss", "ds", "fs", "gs"};
    std::vector<NamedSlot> slots;
    auto add = [&](std::string name, std::size_t offset, unsigned bytes) {
        slots.push_back({std::move(name), std::int64_t(offset), bytes});
    };
    for (unsigned i = 0; i < 16; ++i) add(gpr_names[i], slot::gpr(i), 8);
    add("rip", slot::rip, 8);
    add("rflags", slot::rflags, 8);
    for (unsigned i = 0; i < 6; ++i) {
        add(fmt::format("{}_base", segment_names[i]), slot::segment_base(i), 8);
        add(fmt::format("{}_selector", segment_names[i]), slot::segment_selector(i), 2);
    }
    for (unsigned i = 0; i < 16; ++i) add(fmt::format("xmm{}", i), slot::xmm(i), 32);
    add("mxcsr", slot::mxcsr, 4);
    add("tsc_aux", slot::tsc_aux, 8);
    add("kernel_gs_base", slot::kernel_gs_base, 8);
    return slots;
}

} // namespace

std::optional<std::string> X86Names::slot_name(std::int64_t offset) const {
    for (NamedSlot const& s : named_slots()) {
        if (offset == s.offset) return s.name;
        if (offset > s.offset && offset < s.offset + s.bytes) return fmt::format("{}+{}", s.name, offset - s.offset);
    }
    return std::nullopt;
}

std::optional<std::int64_t> X86Names::slot_offset(std::string_view name) const {
    std::size_t const plus = name.find('+');
    std::int64_t part = 0;
    if (plus != std::string_view::npos) {
        std::string_view const digits = name.substr(plus + 1);
        if (std::from_chars(digits.data(), digits.data() + digits.size(), part).ec != std::errc()) return std::nullopt;
    }
    for (NamedSlot const& s : named_slots())
        if (s.name == name.substr(0, plus)) return s.offset + part;
    return std::nullopt;
}

std::optional<std::string> X86Names::helper_name(std::int64_t id) const {
    if (id < 0 || std::uint64_t(id) >= std::size(helper_names)) return std::nullopt;
    return std::string(helper_names[id]);
}

std::optional<std::int64_t> X86Names::helper_id(std::string_view name) const {
    for (std::size_t i = 0; i < std::size(helper_names); ++i)
        if (helper_names[i] == name) return std::int64_t(i);
    return std::nullopt;
}

} // namespace vmm::tcg::x86
