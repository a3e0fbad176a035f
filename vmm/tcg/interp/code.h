// The interpreter's form of a block: an array of handlers with operand addresses.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/cc.h"

#include <array>
#include <cstdint>
#include <deque>
#include <vector>

namespace vmm::tcg::interp {

struct Code;
// Executes one operation; returns the next one, or null to leave the block (fault or end).
using Handler = Code const* (*)(EngineContext&, Code const*);

// Operands are addresses: of guest state, of temporaries or of constants kept in the block. Handlers read all operands
// before they write dst. 32-bit integer results are written as 64 bits, zero-extended.
struct Code {
    Handler run = nullptr;
    void* dst = nullptr;
    void const* a = nullptr;
    void const* b = nullptr;
    void const* c = nullptr;
    std::uint64_t imm = 0;
};

class InterpBlock;
} // namespace vmm::tcg::interp

// A direct jump's end: where it goes and, once linked, the block there.
struct vmm::tcg::LinkSite {
    vmm::tcg::interp::InterpBlock* target = nullptr;
    std::int32_t offset = 0;
};

namespace vmm::tcg::interp {

class InterpBlock final : public Translation {
public:
    std::vector<Code> code;
    std::deque<std::array<std::uint64_t, 4>> constants;
    // (code index, guest in-page offset) of each guest instruction, ascending.
    std::vector<std::pair<std::uint32_t, std::int32_t>> instructions;
    std::int32_t start = 0;
    std::uint16_t guest_insns = 0;
    LinkSite taken, not_taken;
    std::vector<LinkSite*> incoming;
};

// What a terminal handler leaves for run(): how the block ended. One per interpreter.
struct Runtime {
    GuestInfo guest;
    RunResult result;
};

// The handler of an instruction, or null where another family has it. handlers_*.cpp. `wide`: some operand or the
// result is a v256.
Handler integer_handler(ir::Inst const& inst);
Handler memory_handler(ir::Inst const& inst);
Handler vector_handler(ir::Inst const& inst, bool wide);
// A sub or and whose result is unused.
Handler compare_handler(ir::Inst const& inst);
// What each family's handlers take in Code::imm.
std::uint64_t handler_immediate(ir::Inst const& inst);
std::uint64_t memory_immediate(ir::Inst const& inst);
std::uint64_t vector_immediate(ir::Inst const& inst, bool wide);

template <class T> T& at(void* p) { return *static_cast<T*>(p); }
template <class T> T const& at(void const* p) { return *static_cast<T const*>(p); }
// Writes an integer result by the rule above.
template <class U> void result(Code const* c, U v) {
    if constexpr (sizeof(U) == 4)
        at<std::uint64_t>(c->dst) = v;
    else
        at<U>(c->dst) = v;
}
template <class U> constexpr unsigned log2_size = sizeof(U) == 1 ? 0 : sizeof(U) == 2 ? 1 : sizeof(U) == 4 ? 2 : 3;
template <class U> void set_cc(EngineContext& e, CcKind kind, U res, std::uint64_t src) {
    e.cc_op = cc_op(kind, log2_size<U>);
    e.cc_res = res;
    e.cc_src = src;
}
inline bool carry(EngineContext const& e) {
    if (e.cc_op == cc_op(CcKind::raw, 3)) return e.cc_src & 1;
    return cc_image(e) & 1;
}
bool condition(EngineContext const& e, ir::Cond cc);

} // namespace vmm::tcg::interp
