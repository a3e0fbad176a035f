#include "vmm/tcg/guest/x86/helpers.h"

#include <array>

namespace vmm::tcg::x86 {

static constexpr HelperInfo make(char const* name, HelperFunction function, std::string_view traits) {
    auto has = [&](char c) { return traits.find(c) != std::string_view::npos; };
    return {name, function, has('R'), has('W'), has('F'), has('M'), has('X'), has('P')};
}

HelperInfo const& helper_info(HelperId id) {
    static constexpr HelperInfo table[] = {
#define HELPER(name, traits) make(#name, helper::name, traits),
#include "vmm/tcg/guest/x86/helpers_fp.inc"
#include "vmm/tcg/guest/x86/helpers_integer.inc"
#include "vmm/tcg/guest/x86/helpers_system.inc"
#undef HELPER
    };
    return table[unsigned(id)];
}

} // namespace vmm::tcg::x86
