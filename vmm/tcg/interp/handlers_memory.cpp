// Guest memory: loads, stores and read-modify-write, through the TLB or the guest's slow paths.
#include "vmm/tcg/interp/by_type.h"
#include "vmm/tcg/rmw.h"

#include <type_traits>

namespace vmm::tcg::interp {

using namespace ir;

namespace {

struct Lanes16 {
    std::uint64_t q[2];
};
struct Lanes32 {
    std::uint64_t q[4];
};

// Code::imm of memory operations: the MemAttr bits, and bit 8 = sets_flags.
constexpr std::uint64_t wants_flags = 256;

template <class U> bool misaligned(EngineContext& e, Code const* c, std::uint64_t va) {
    if (!(c->imm & mem_aligned) || !(va & (sizeof(U) - 1))) return false;
    e.memory->alignment_fault(e, va);
    return true;
}

template <class U> Code const* load(EngineContext& e, Code const* c) {
    std::uint64_t va = at<std::uint64_t>(c->a);
    U v;
    if (void* host = tlb_lookup(e.bank->read, va, sizeof(U))) [[likely]] {
        __builtin_memcpy(&v, host, sizeof v);
    } else if (!e.memory->load(e, va, sizeof v, &v)) {
        return nullptr;
    }
    if constexpr (sizeof(U) > 8) at<U>(c->dst) = v;
    else result<U>(c, v);
    return c + 1;
}
// With attributes: alignment, or a load that must be writable.
template <class U> Code const* load_checked(EngineContext& e, Code const* c) {
    std::uint64_t va = at<std::uint64_t>(c->a);
    if (misaligned<U>(e, c, va)) return nullptr;
    if ((c->imm & mem_for_write) && !tlb_lookup(e.bank->write, va, sizeof(U))) {
        e.memory->rmw_pointer(e, va, sizeof(U));
        if (e.fault_pending) return nullptr;
    }
    return load<U>(e, c);
}
template <class U> Code const* store(EngineContext& e, Code const* c) {
    std::uint64_t va = at<std::uint64_t>(c->a);
    U const& v = at<U>(c->b);
    if (void* host = tlb_lookup(e.bank->write, va, sizeof(U))) [[likely]] {
        __builtin_memcpy(host, &v, sizeof v);
    } else if (!e.memory->store(e, va, sizeof v, &v)) {
        return nullptr;
    }
    return c + 1;
}
template <class U> Code const* store_checked(EngineContext& e, Code const* c) {
    if (misaligned<U>(e, c, at<std::uint64_t>(c->a))) return nullptr;
    return store<U>(e, c);
}

template <class U> void modify_flags(EngineContext& e, Opcode op, U old, U b, U now, bool cf) {
    LazyFlags const flags = rmw_flags<U>(op, old, b, now, cf, cc_image(e));
    if (flags.kind == CcKind::raw) return set_cc_raw(e, flags.src);
    set_cc<U>(e, flags.kind, U(flags.res), flags.src);
}
constexpr bool reads_carry(Opcode op) {
    return op == Opcode::rmw_adc || op == Opcode::rmw_sbb || op == Opcode::rmw_inc || op == Opcode::rmw_dec;
}

template <class U, Opcode op> Code const* rmw(EngineContext& e, Code const* c) {
    std::uint64_t va = at<std::uint64_t>(c->a);
    U b = c->b ? at<U>(c->b) : U(0), old, now;
    bool cf = reads_carry(op) && carry(e);
    void* host = tlb_lookup(e.bank->write, va, sizeof(U));
    if (!host) [[unlikely]] {
        host = e.memory->rmw_pointer(e, va, sizeof(U));
        if (e.fault_pending) return nullptr;
    }
    if (host && (reinterpret_cast<std::uintptr_t>(host) & (sizeof(U) - 1)) == 0 && (op == Opcode::rmw_xchg || (c->imm & mem_lock))) {
        U* p = static_cast<U*>(host);
        old = __atomic_load_n(p, __ATOMIC_RELAXED);
        do now = rmw_value<U>(op, old, b, cf);
        while (!__atomic_compare_exchange_n(p, &old, now, false, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    } else if (host && !(c->imm & mem_lock) && op != Opcode::rmw_xchg) {
        __builtin_memcpy(&old, host, sizeof old);
        now = rmw_value<U>(op, old, b, cf);
        __builtin_memcpy(host, &now, sizeof now);
    } else {
        e.memory->rmw_lock(e);
        bool ok = e.memory->load(e, va, sizeof old, &old);
        if (ok) {
            now = rmw_value<U>(op, old, b, cf);
            ok = e.memory->store(e, va, sizeof now, &now);
        }
        e.memory->rmw_unlock(e);
        if (!ok) return nullptr;
    }
    if (c->imm & wants_flags) modify_flags<U>(e, op, old, b, now, cf);
    if (c->dst) result<U>(c, old);
    return c + 1;
}

template <class U> Code const* cmpxchg(EngineContext& e, Code const* c) {
    std::uint64_t va = at<std::uint64_t>(c->a);
    U expected = at<U>(c->b), desired = at<U>(c->c), old;
    void* host = tlb_lookup(e.bank->write, va, sizeof(U));
    if (!host) [[unlikely]] {
        host = e.memory->rmw_pointer(e, va, sizeof(U));
        if (e.fault_pending) return nullptr;
    }
    if (host && (reinterpret_cast<std::uintptr_t>(host) & (sizeof(U) - 1)) == 0) {
        old = expected;
        __atomic_compare_exchange_n(static_cast<U*>(host), &old, desired, false, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
    } else {
        e.memory->rmw_lock(e);
        bool ok = e.memory->load(e, va, sizeof old, &old);
        if (ok) {
            U now = old == expected ? desired : old;
            ok = e.memory->store(e, va, sizeof now, &now);
        }
        e.memory->rmw_unlock(e);
        if (!ok) return nullptr;
    }
    if (c->imm & wants_flags) set_cc<U>(e, CcKind::sub, U(expected - old), old);
    if (c->dst) result<U>(c, old);
    return c + 1;
}

} // namespace

std::uint64_t memory_immediate(Inst const& inst) { return inst.memory | (inst.sets_flags ? wants_flags : 0); }

Handler memory_handler(Inst const& inst) {
    bool checked = inst.memory & (mem_aligned | mem_for_write);
    switch (inst.op) {
    case Opcode::load:
        if (inst.type == Type::v128) return checked ? load_checked<Lanes16> : load<Lanes16>;
        if (inst.type == Type::v256) return checked ? load_checked<Lanes32> : load<Lanes32>;
        return checked ? BY_TYPE(inst.type, load_checked<U>) : BY_TYPE(inst.type, load<U>);
    case Opcode::store:
        if (inst.type == Type::v128) return checked ? store_checked<Lanes16> : store<Lanes16>;
        if (inst.type == Type::v256) return checked ? store_checked<Lanes32> : store<Lanes32>;
        return checked ? BY_TYPE(inst.type, store_checked<U>) : BY_TYPE(inst.type, store<U>);
#define RMW(name) \
    case Opcode::name: return BY_TYPE(inst.type, rmw<U, Opcode::name>);
        RMW(rmw_add) RMW(rmw_or) RMW(rmw_adc) RMW(rmw_sbb) RMW(rmw_and) RMW(rmw_sub) RMW(rmw_xor) RMW(rmw_inc) RMW(rmw_dec)
        RMW(rmw_neg) RMW(rmw_not) RMW(rmw_bts) RMW(rmw_btr) RMW(rmw_btc) RMW(rmw_xchg)
#undef RMW
    case Opcode::cmpxchg: return BY_TYPE(inst.type, cmpxchg<U>);
    default: return nullptr;
    }
}

} // namespace vmm::tcg::interp
