#include "ir_machine.h"

#include <fmt/core.h>

namespace vmm::tcg::test {

namespace {

State& of(EngineContext& e) { return reinterpret_cast<State&>(e); }

bool fault(EngineContext& e, std::uint64_t va) {
    if (!e.fault_pending) of(e).fault_address = va;
    e.fault_pending = fault_guest;
    return false;
}

std::uint64_t pure(EngineContext&, std::uint64_t a, std::uint64_t b, std::uint64_t c) { return a * 3 + b * 5 + c * 7; }
std::uint64_t swap(EngineContext& e, std::uint64_t a, std::uint64_t b, std::uint64_t) {
    State& s = of(e);
    std::swap(s.gpr[a & 15], s.gpr[b & 15]);
    std::swap(s.vec[a & 15], s.vec[b & 15]);
    set_cc_raw(e, cc_image(e) ^ 1);
    return s.gpr[a & 15] ^ s.mxcsr;
}
std::uint64_t maybe_fault(EngineContext& e, std::uint64_t a, std::uint64_t, std::uint64_t) {
    if ((a & 7) == 3) fault(e, a);
    return a + 1;
}
std::uint64_t sum(EngineContext& e, std::uint64_t, std::uint64_t, std::uint64_t) {
    std::uint64_t total = cc_image(e);
    for (auto g : of(e).gpr) total += g;
    return total;
}
GuestInfo::Helper helper(std::uint16_t id) {
    switch (id) {
    case h_pure: return {pure, "pure", false, false, false, false, false, true};
    case h_swap: return {swap, "swap", true, true, false, false, false, false};
    case h_fault: return {maybe_fault, "maybe_fault", false, false, true, false, false, false};
    default: return {sum, "sum", true, false, false, false, false, false};
    }
}

bool load(EngineContext& e, std::uint64_t va, unsigned size, void* to) {
    return of(e).machine->access(va, size, to, false);
}
bool store(EngineContext& e, std::uint64_t va, unsigned size, void const* from) {
    return of(e).machine->access(va, size, const_cast<void*>(from), true);
}
void* rmw_pointer(EngineContext& e, std::uint64_t va, unsigned size) {
    IrMachine& m = *of(e).machine;
    for (std::uint64_t at : {va, va + size - 1})
        if (!m.page(at)) return fault(e, at), nullptr;
    if (va >> 12 != (va + size - 1) >> 12 || va >= device_page) return nullptr;
    return m.page(va);
}
void nothing(EngineContext&) {}
void divide_error(EngineContext& e) { fault(e, 0xd1); }
void alignment_fault(EngineContext& e, std::uint64_t va) { fault(e, va | 1ull << 63); }
constexpr MemoryOps operations{load, store, rmw_pointer, nothing, nothing, divide_error, alignment_fault};

} // namespace

bool IrMachine::access(std::uint64_t va, unsigned size, void* data, bool write) {
    for (std::uint64_t at : {va, va + size - 1})
        if (!page(at)) return fault(state.engine, at);
    for (unsigned i = 0; i < size; ++i) {
        std::uint8_t* at = page(va + i);
        std::uint8_t& byte = static_cast<std::uint8_t*>(data)[i];
        if (write)
            *at = byte;
        else
            byte = *at;
    }
    if (fill_tlb && va < device_page && va >> 12 == (va + size - 1) >> 12) {
        TlbEntry entry{va & ~0xfffull, reinterpret_cast<std::uint64_t>(memory.data()) - ram_base};
        (write ? bank.write : bank.read)[TlbBank::slot(va)] = entry;
    }
    return true;
}

IrMachine::IrMachine(MakeBackend const& make, unsigned registers) {
    state.machine = this;
    state.engine.bank = &bank;
    state.engine.memory = &operations;
    state.engine.fp_control = &state.mxcsr;
    state.engine.pc_base = 0x400000;
    for (unsigned i = 0; i < 16; ++i) register_slots[i] = std::uint32_t(gpr_slot(i));
    GuestInfo guest{.pc = &state.pc,
                    .pc_mask = [](EngineContext const&) { return ~std::uint64_t(0); },
                    .helper = helper,
                    .registers = {register_slots.data(), registers}};
    backend = make(state.engine, guest);
}
IrMachine::~IrMachine() { translations.clear(); }

std::string IrMachine::run(std::map<std::int32_t, ir::Block> const& blocks, std::int32_t start) {
    state.pc = 0x400000 + std::uint64_t(start);
    LinkSite* open = nullptr;
    for (unsigned steps = 0; steps < 100000; ++steps) {
        std::int32_t offset = std::int32_t(state.pc - 0x400000);
        auto found = blocks.find(offset);
        if (found == blocks.end()) return fmt::format("left to {:#x}", state.pc);
        if (!translations[offset]) {
            auto made = backend->translate(found->second);
            if (!made) { // no room
                translations.clear();
                open = nullptr;
                made = backend->translate(found->second);
            }
            translations[offset] = std::move(made);
        }
        auto& translation = translations[offset];
        if (open) backend->link(*open, *translation);
        state.engine.pc_base = 0x400000;
        RunResult end = backend->run(*translation);
        ++exits;
        open = end.site;
        if (end.end == RunEnd::fault) return fmt::format("fault at {:#x}", state.pc);
        if (end.end == RunEnd::dispatch) return "dispatch";
        if (end.end == RunEnd::exit_request) return fmt::format("exit request at {:#x}", state.pc);
    }
    return "never ends";
}

std::string IrMachine::dump() const {
    std::string text;
    for (unsigned i = 0; i < 16; ++i) text += fmt::format("r{}={:x}\n", i, state.gpr[i]);
    for (unsigned i = 0; i < 16; ++i)
        text += fmt::format("v{}={:x} {:x} {:x} {:x}\n", i, state.vec[i][0], state.vec[i][1], state.vec[i][2],
                            state.vec[i][3]);
    text += fmt::format("flags={:x} mxcsr={:x} fuel={} fault={} {:x}\n", cc_image(state.engine), state.mxcsr,
                        state.fuel, state.engine.fault_pending, state.fault_address);
    std::uint64_t hash = 14695981039346656037ull;
    for (std::uint8_t b : memory) hash = (hash ^ b) * 1099511628211ull;
    return text + fmt::format("memory={:x}\n", hash);
}

} // namespace vmm::tcg::test
