// Hardware task switching (SDM vol. 3 chapter 7).
#pragma once
#include "vmm/tcg/guest/x86/context.h"

#include <cstdint>
#include <optional>

namespace vmm::tcg::x86 {

enum class TaskSwitch : std::uint8_t { jump, call, iret, gate };

// Switches to the task of TSS selector `selector`; the outgoing task resumes at `next_rip`. `error` is pushed on the
// new stack. `ext` goes into error codes. False: a fault is recorded. Faults found after the new task's registers are
// in place are recorded with the new task current, as hardware reports them, and return true.
bool switch_task(X86Context& c, std::uint16_t selector, TaskSwitch why, std::uint64_t next_rip,
                 std::optional<std::uint32_t> error = std::nullopt, unsigned ext = 0);
// Through a task gate's selector; checks it to be a GDT selector.
bool switch_through_gate(X86Context& c, std::uint16_t tss_selector, TaskSwitch why, std::uint64_t next_rip,
                         std::optional<std::uint32_t> error = std::nullopt, unsigned ext = 0);

} // namespace vmm::tcg::x86
