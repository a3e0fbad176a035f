// X86Names: names of x86 context slots and helpers for the IR's text form.
#pragma once
#include "vmm/tcg/ir/text.h"

namespace vmm::tcg::x86 {

// Slots: rax..r15 (AH: "rax+1"), rip, rflags, es_base.., es_selector.., xmm0.. (parts: "xmm0+8"), mxcsr, tsc_aux,
// kernel_gs_base.
class X86Names final : public ir::Names {
public:
    std::optional<std::string> slot_name(std::int64_t offset) const override;
    std::optional<std::int64_t> slot_offset(std::string_view name) const override;
    std::optional<std::string> helper_name(std::int64_t id) const override;
    std::optional<std::int64_t> helper_id(std::string_view name) const override;
};

} // namespace vmm::tcg::x86
