#include "vmm/tcg/interp/interpreter.h"

#include <algorithm>

namespace vmm::tcg::interp {

Interpreter::Interpreter(EngineContext& context, GuestInfo const& guest)
    : context_(context), runtime_{.guest = guest, .result = {}}, temps_(std::make_unique<Temp[]>(max_temps)) {}

std::unique_ptr<Translation> Interpreter::translate(ir::Block const& block) {
    return compile(block, reinterpret_cast<std::uint8_t*>(&context_), {temps_.get(), max_temps}, runtime_);
}

// In-page offset of the instruction that code index `index` belongs to.
static std::int32_t instruction_at(InterpBlock const& block, std::uint32_t index) {
    auto it = std::upper_bound(block.instructions.begin(), block.instructions.end(), index,
                               [](std::uint32_t v, auto const& entry) { return v < entry.first; });
    return it == block.instructions.begin() ? block.start : std::prev(it)->second;
}

RunResult Interpreter::run(Translation& first) {
    EngineContext& e = context_;
    auto* block = static_cast<InterpBlock*>(&first);
    for (;;) {
        if (e.exit_request.load(std::memory_order_seq_cst)) [[unlikely]] {
            *runtime_.guest.pc = (e.pc_base + std::int64_t(block->start)) & runtime_.guest.pc_mask(e);
            return {RunEnd::exit_request, nullptr};
        }
        e.insn_count += block->guest_insns;
        ++block->executions;
        Code const* code = block->code.data();
        Code const* last;
        do {
            last = code;
            code = code->run(e, code);
        } while (code);
        if (e.fault_pending) [[unlikely]] {
            std::int32_t offset = instruction_at(*block, std::uint32_t(last - block->code.data()));
            *runtime_.guest.pc = (e.pc_base + std::int64_t(offset)) & runtime_.guest.pc_mask(e);
            return {RunEnd::fault, nullptr};
        }
        LinkSite* site = runtime_.result.site;
        if (!site) return runtime_.result;
        if (!site->target) {
            *runtime_.guest.pc = (e.pc_base + std::int64_t(site->offset)) & runtime_.guest.pc_mask(e);
            return {RunEnd::next, site};
        }
        block = site->target;
    }
}

void Interpreter::link(LinkSite& site, Translation& to) {
    auto& target = static_cast<InterpBlock&>(to);
    if (site.target == &target || target.crosses_page) return;
    VMM_ASSERT(!site.target);
    site.target = &target;
    target.incoming.push_back(&site);
}

void Interpreter::unlink(Translation& to) {
    auto& block = static_cast<InterpBlock&>(to);
    for (LinkSite* site : block.incoming) site->target = nullptr;
    block.incoming.clear();
    for (LinkSite* site : {&block.taken, &block.not_taken})
        if (site->target) {
            std::erase(site->target->incoming, site);
            site->target = nullptr;
        }
}

} // namespace vmm::tcg::interp
