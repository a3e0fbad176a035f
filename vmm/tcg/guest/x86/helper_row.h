// The x86 helpers as back ends know them.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/guest/x86/helpers.h"

namespace vmm::tcg::x86 {

// For GuestInfo::helper.
inline GuestInfo::Helper helper_row(std::uint16_t id) {
    HelperInfo const& h = helper_info(HelperId(id));
    // An X86Context begins with its EngineContext, so the two signatures pass the same pointer.
    return {.function = reinterpret_cast<tcg::HelperFunction>(reinterpret_cast<void (*)()>(h.function)),
            .name = h.name,
            .reads = h.reads,
            .writes = h.writes,
            .faults = h.faults,
            .memory = h.memory,
            .exits = h.exits,
            .pure = h.pure};
}

} // namespace vmm::tcg::x86
