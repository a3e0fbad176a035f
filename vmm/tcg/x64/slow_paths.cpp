#include "vmm/tcg/x64/slow_paths.h"

#include "vmm/tcg/cc.h"
#include "vmm/tcg/ir/vec_ops.h"
#include "vmm/tcg/rmw.h"
#include "vmm/tcg/x64/flag_state.h"
#include "vmm/tcg/x64/frame.h"

#include <limits>
#include <type_traits>

namespace vmm::tcg::x64 {

using namespace ir;

static_assert(offsetof(SlowFrame, carry) == frame::carry && offsetof(SlowFrame, image) == frame::image &&
              offsetof(SlowFrame, keep0) == frame::keep0);

extern "C" {

bool vmm_x64_load(EngineContext& e, std::uint64_t va, std::uint64_t word, SlowFrame& f) {
    return e.memory->load(e, va, ExitWord::access_bytes(word), f.buffer);
}
bool vmm_x64_store(EngineContext& e, std::uint64_t va, std::uint64_t word, SlowFrame& f) {
    return e.memory->store(e, va, ExitWord::access_bytes(word), f.buffer);
}
bool vmm_x64_load_for_write(EngineContext& e, std::uint64_t va, std::uint64_t word, SlowFrame& f) {
    unsigned const size = ExitWord::access_bytes(word);
    e.memory->rmw_pointer(e, va, size);
    return !e.fault_pending && e.memory->load(e, va, size, f.buffer);
}
bool vmm_x64_rmw_pointer(EngineContext& e, std::uint64_t va, std::uint32_t size, SlowFrame& f) {
    f.buffer[3] = reinterpret_cast<std::uint64_t>(e.memory->rmw_pointer(e, va, size));
    return !e.fault_pending;
}
bool vmm_x64_alignment_fault(EngineContext& e, std::uint64_t va, std::uint32_t, SlowFrame&) {
    e.memory->alignment_fault(e, va);
    return false;
}

} // extern "C"

namespace {

template <class U> constexpr unsigned width_code = sizeof(U) == 1 ? 0 : sizeof(U) == 2 ? 1 : sizeof(U) == 4 ? 2 : 3;

template <class U> bool slow_rmw(EngineContext& e, std::uint64_t va, Opcode op, SlowFrame& f) {
    U b = U(f.buffer[0]), old = 0;
    bool cf = f.carry & 1;
    e.memory->rmw_lock(e);
    bool ok = e.memory->load(e, va, sizeof old, &old);
    LazyFlags flags{CcKind::sub, U(b - old), old};
    if (ok) {
        U now = op == Opcode::cmpxchg ? (old == b ? U(f.buffer[1]) : old) : rmw_value<U>(op, old, b, cf);
        if (op != Opcode::cmpxchg) flags = rmw_flags<U>(op, old, b, now, cf, cc_image(e));
        ok = e.memory->store(e, va, sizeof now, &now);
    }
    e.memory->rmw_unlock(e);
    f.buffer[3] = old;
    f.image = cc_image<U>(flags.kind, U(flags.res), U(flags.src), flags.src) | 0x202;
    return ok;
}

template <class U> bool slow_divide(EngineContext& e, bool is_signed, SlowFrame& f) {
    constexpr unsigned bits = sizeof(U) * 8;
    using S = std::make_signed_t<U>;
    unsigned __int128 n = (unsigned __int128)(U(f.buffer[0])) << bits | U(f.buffer[1]);
    U d = U(f.buffer[2]);
    auto fault = [&] { return e.memory->divide_error(e), false; };
    if (d == 0) return fault();
    if (!is_signed) {
        unsigned __int128 q = n / d;
        if (q >> bits) return fault();
        f.buffer[0] = U(q), f.buffer[1] = U(n % d);
        return true;
    }
    __int128 sn = __int128(n << (128 - 2 * bits)) >> (128 - 2 * bits), sd = S(d);
    if (sd == -1 && sn == std::numeric_limits<__int128>::min()) return fault();
    __int128 q = sn / sd;
    if (q != __int128(S(U(q)))) return fault();
    f.buffer[0] = U(q), f.buffer[1] = U(sn % sd);
    return true;
}

} // namespace

extern "C" {

bool vmm_x64_rmw(EngineContext& e, std::uint64_t va, std::uint32_t request, SlowFrame& f) {
    Opcode op = Opcode(request & 0xff);
    switch (Type(request >> 8)) {
    case Type::i8: return slow_rmw<std::uint8_t>(e, va, op, f);
    case Type::i16: return slow_rmw<std::uint16_t>(e, va, op, f);
    case Type::i32: return slow_rmw<std::uint32_t>(e, va, op, f);
    default: return slow_rmw<std::uint64_t>(e, va, op, f);
    }
}

bool vmm_x64_divide(EngineContext& e, std::uint64_t, std::uint32_t request, SlowFrame& f) {
    bool is_signed = request & 4;
    switch (request & 3) {
    case 0: return slow_divide<std::uint8_t>(e, is_signed, f);
    case 1: return slow_divide<std::uint16_t>(e, is_signed, f);
    case 2: return slow_divide<std::uint32_t>(e, is_signed, f);
    default: return slow_divide<std::uint64_t>(e, is_signed, f);
    }
}

bool vmm_x64_vector(EngineContext& e, std::uint64_t, std::uint32_t, SlowFrame& f) {
    auto* call = reinterpret_cast<VecCall*>(reinterpret_cast<std::uint8_t*>(&f) + frame::vec_call);
    auto pointer = [](std::uint64_t v) { return reinterpret_cast<void*>(v); };
    VecEnv env{.mxcsr = *e.fp_control};
    run_vec(VecOp(call->op), call->bytes, pointer(call->result), pointer(call->a), pointer(call->b), pointer(call->c),
            std::uint8_t(call->imm), env);
    *e.fp_control = env.mxcsr;
    call->flags = env.flags | 0x202;
    return true;
}

} // extern "C"

} // namespace vmm::tcg::x64
