#include "vmm/tcg/x64/thunks.h"

#include "vmm/tcg/x64/address_cache.h"
#include "vmm/tcg/x64/block.h"
#include "vmm/tcg/x64/flag_state.h"
#include "vmm/tcg/x64/frame.h"
#include "vmm/tcg/x64/slow_paths.h"

#include <cstddef>
#include <vector>

namespace vmm::tcg::x64 {

using namespace Xbyak::util;
using ir::Cond;

namespace {
constexpr int caller_saved[] = {host::rax, host::rcx, host::rdx, host::rsi, host::rdi,
                                host::r8,  host::r9,  host::r10, host::r11};
constexpr int pushed_bytes = 8 * std::int32_t(std::size(caller_saved)) + 8; // with the return address
constexpr std::uint32_t default_mxcsr = 0x1f80, mxcsr_flags = 0x3f;

bool is_caller_saved(int r) {
    for (int c : caller_saved)
        if (c == r) return true;
    return false;
}
constexpr int context_offset(std::size_t o) { return int(o); }
#define CONTEXT(field) rbp + context_offset(offsetof(EngineContext, field))
} // namespace

Thunks::Thunks(Assembler& as, Pins const& pins, EngineContext& context, GuestInfo const& guest, Onward onward)
    : as_(as), pins_(pins), context_(context), guest_(guest), onward_(onward) {}

std::uint8_t const* Thunks::start() {
    as_.align(16);
    return as_.here();
}

void Thunks::emit() {
    emit_leave();
    emit_dispatch();
    emit_enter();
    emit_restore_flags();
    emit_slow_paths();
    emit_snippets();
}

template <class F> Snippet Thunks::snippet(F make) {
    std::uint8_t const* at = start();
    make(at);
    return {at, std::size_t(as_.here() - at)};
}

static_assert(sizeof(TlbEntry) == 16 && offsetof(TlbBank, read) == 0 && offsetof(TlbEntry, addend) == 8);

void Thunks::emit_snippets() {
    entry_ = snippet([&](std::uint8_t const* at) {
        as_.lea(r15, ptr[r14 + 0x12345678]); // 32 bits of displacement
        entry_start_ = std::size_t(as_.here() - at) - 4;
        as_.mov(qword[CONTEXT(pc_base)], r15);
    });
    slot_ = snippet([&](auto) {
        as_.and_(r15d, int(TlbBank::entries - 1) << 4);
        as_.add(r15, qword[CONTEXT(bank)]);
    });
    for (bool write : {false, true})
        check_[write] = snippet([&](std::uint8_t const* at) {
            int const table = write ? int(offsetof(TlbBank, write)) : 0;
            as_.and_(r14, -4096);
            as_.cmp(r14, qword[r15 + table]);
            check_miss_[write] = std::size_t(as_.jump_if(Cond::ne).field - at);
            as_.mov(r15, qword[r15 + (table + 8)]);
        });
    address_jump_ = snippet([&](std::uint8_t const* at) {
        as_.cmp(dword[CONTEXT(exit_request)], 0);
        jump_exit_ = std::size_t(as_.jump_if(Cond::ne).field - at);
        jump_miss_ = std::size_t(emit_address_lookup(as_).field - at);
    });
}

void Thunks::copy_entry(std::int32_t first) {
    std::uint8_t* at = as_.here();
    as_.copy(entry_);
    std::int32_t const back = -first;
    __builtin_memcpy(at + entry_start_, &back, sizeof back);
}

Fixup Thunks::copy_check(bool write) {
    std::uint8_t* at = as_.here();
    as_.copy(check_[write]);
    return {at + check_miss_[write]};
}

void Thunks::copy_address_jump() {
    std::uint8_t* at = as_.here();
    as_.copy(address_jump_);
    as_.bind({at + jump_exit_}, leave_indirect_exit);
    as_.bind({at + jump_miss_}, look_further);
}

void Thunks::store_pins(bool all) {
    for (unsigned i = 0; i < pins_.count; ++i)
        if (all || is_caller_saved(pins_.pin[i].host))
            as_.mov(qword[rbp + int(pins_.pin[i].offset)], as_.r64(pins_.pin[i].host));
}
void Thunks::load_pins(bool all) {
    for (unsigned i = 0; i < pins_.count; ++i)
        if (all || is_caller_saved(pins_.pin[i].host))
            as_.mov(as_.r64(pins_.pin[i].host), qword[rbp + int(pins_.pin[i].offset)]);
}

void Thunks::emit_enter() {
    enter = start();
    for (int r : {host::rbx, host::rbp, host::r12, host::r13, host::r14, host::r15}) as_.push(as_.r64(r));
    as_.sub(rsp, frame::allocation);
    as_.mov(rbp, rdi);
    as_.mov(r14, rsi);
    if (context_.fp_control) {
        as_.mov(rax, qword[CONTEXT(fp_control)]);
        as_.mov(eax, dword[rax]);
        as_.and_(eax, 0xffff);
        as_.or_(eax, default_mxcsr);
        as_.mov(dword[rsp + frame::mxcsr], eax);
        as_.ldmxcsr(dword[rsp + frame::mxcsr]);
    }
    load_pins(true);
    as_.jmp(r14);
}

void Thunks::emit_leave() {
    std::uint8_t const* common = start();
    store_pins(true);
    std::uint8_t const* stored = as_.here();
    as_.vzeroupper();
    if (context_.fp_control) {
        as_.stmxcsr(dword[rsp + frame::mxcsr]);
        as_.mov(eax, dword[rsp + frame::mxcsr]);
        as_.mov(ecx, eax);
        as_.and_(ecx, mxcsr_flags);
        as_.mov(rdx, qword[CONTEXT(fp_control)]);
        as_.or_(dword[rdx], ecx);
        as_.and_(eax, ~mxcsr_flags);
        as_.cmp(eax, default_mxcsr);
        Fixup usual = as_.jump_if(Cond::e);
        as_.mov(dword[rsp + frame::mxcsr], default_mxcsr);
        as_.ldmxcsr(dword[rsp + frame::mxcsr]);
        as_.bind(usual);
    }
    as_.mov(rax, r14);
    as_.mov(rdx, r15);
    as_.add(rsp, frame::allocation);
    for (int r : {host::r15, host::r14, host::r13, host::r12, host::rbp, host::rbx}) as_.pop(as_.r64(r));
    as_.ret();
    auto way = [&](RunEnd end) {
        std::uint8_t const* at = start();
        as_.mov(r14d, std::uint32_t(end));
        as_.jump_to(common);
        return at;
    };
    leave_next = way(RunEnd::next);
    leave_dispatch = way(RunEnd::dispatch);
    leave_fault = way(RunEnd::fault);
    leave_exit_request = way(RunEnd::exit_request);
    auto indirect = [&](std::uint8_t const* next) {
        std::uint8_t const* at = start();
        as_.mov(r15, reinterpret_cast<std::uint64_t>(guest_.pc));
        as_.mov(qword[r15], r14);
        as_.mov(r15d, 0);
        as_.jump_to(next);
        return at;
    };
    emit_leave_with_flags(stored);
    std::uint8_t const* not_found = indirect(leave_next);
    leave_indirect_exit = indirect(leave_exit_request);
    leave_indirect = start();
    store_pins(false);
    as_.mov(rdi, rbp);
    as_.mov(rsi, r14);
    as_.call_function(reinterpret_cast<void const*>(onward_.find));
    as_.mov(r15, rax);
    load_pins(false);
    as_.test(r15, r15);
    as_.bind(as_.jump_if(Cond::e), not_found);
    as_.jmp(r15);
    look_further = start();
    as_.xor_(r15, int(sizeof(AddressCache::Entry)));
    as_.cmp(qword[r15], r14);
    as_.bind(as_.jump_if(Cond::ne), leave_indirect);
    as_.jmp(qword[r15 + 8]);
}

// Ways out on which the condition codes are stored in C++. `stored`: where the general registers have been stored.
void Thunks::emit_leave_with_flags(std::uint8_t const* stored) {
    auto store_flags = [&] { // rsi = ExitWord
        as_.mov(rdx, rsp);
        as_.mov(rdi, rbp);
        as_.call_function(reinterpret_cast<void const*>(vmm_x64_store_flags));
    };
    auto show_registers = [&] { // r15: who jumps here has done that
        store_pins(true);
        for (int r = 0; r < host::r15; ++r)
            if (r != host::rsp) as_.mov(qword[rsp + (frame::registers + 8 * r)], as_.r64(r));
    };
    auto edge = [&](RunEnd end) {
        std::uint8_t const* at = start();
        show_registers();
        as_.pushfq();
        as_.pop(rcx);
        as_.mov(rsi, qword[r15 + int(offsetof(LinkSite, flags))]);
        store_flags();
        as_.mov(r14d, std::uint32_t(end));
        as_.jump_to(stored);
        return at;
    };
    leave_edge = edge(RunEnd::next);
    leave_edge_exit = edge(RunEnd::exit_request);
    leave_access = start();
    as_.lea(rsp, ptr[rsp + 8]);
    show_registers();
    as_.mov(rsi, r15);
    store_flags();
    as_.sar(r15d, 19); // ExitWord::access_offset
    as_.movsxd(r15, r15d);
    as_.mov(r14d, std::uint32_t(RunEnd::fault));
    as_.jump_to(stored);
}

Fixup emit_address_lookup(Assembler& as) {
    as.rorx(r15d, r14d, 28);
    as.rorx(r11d, r14d, 8);
    as.xor_(r15d, r11d);
    as.and_(r15d, int(AddressCache::entries - 1) << 4);
    as.add(r15, qword[CONTEXT(address_cache)]);
    as.cmp(qword[r15], r14);
    Fixup const miss = as.jump_if(Cond::ne);
    as.jmp(qword[r15 + 8]);
    return miss;
}

void Thunks::emit_dispatch() {
    dispatch = start();
    store_pins(false);
    as_.mov(rdi, rbp);
    as_.call_function(reinterpret_cast<void const*>(onward_.go_on));
    as_.test(al, al);
    load_pins(false);
    as_.bind(as_.jump_if(Cond::e), leave_dispatch);
    as_.mov(r14, reinterpret_cast<std::uint64_t>(guest_.pc));
    as_.mov(r14, qword[r14]);
    as_.bind(emit_address_lookup(as_), look_further);
}

// Each lazy form is turned back into the operands of an instruction that sets the flags.
void Thunks::emit_restore_flags() {
    constexpr unsigned kinds = 10;
    std::vector<std::uint8_t const*> entries;
    auto finish = [&] {
        as_.pop(r15);
        as_.pop(r14);
        as_.ret();
    };
    auto from_image = [&] {
        as_.or_(r14d, 0x202);
        as_.push(r14);
        as_.popfq();
        finish();
    };
    for (unsigned op = 0; op < kinds * 4; ++op) {
        CcKind kind = CcKind(op >> 2);
        ir::Type t = ir::Type(op & 3);
        auto x = as_.reg(t, host::r14), y = as_.reg(t, host::r15);
        entries.push_back(as_.executable(as_.here()));
        as_.mov(r14, qword[CONTEXT(cc_res)]);
        as_.mov(r15, qword[CONTEXT(cc_src)]);
        switch (kind) {
        case CcKind::raw:
            as_.mov(r14, r15);
            as_.and_(r14d, 0x8d5);
            from_image();
            continue;
        case CcKind::lahf:
            as_.mov(r14, rax);
            as_.mov(rax, r15);
            as_.add(al, 0x7f); // sets OF when bit 0 is set
            as_.sahf();
            as_.mov(rax, r14);
            finish();
            continue;
        case CcKind::res_co:
            as_.and_(r15d, 0x811);
            as_.test(x, x);
            as_.pushfq();
            as_.pop(r14);
            as_.and_(r14d, 0xc4);
            as_.or_(r14d, r15d);
            from_image();
            continue;
        case CcKind::add: as_.sub(r14, r15), as_.add(x, y); break;
        case CcKind::adc: as_.sub(r14, r15), as_.sub(r14, 1), as_.stc(), as_.adc(x, y); break;
        case CcKind::sub: as_.add(r14, r15), as_.cmp(x, y); break;
        case CcKind::sbb: as_.add(r14, r15), as_.add(r14, 1), as_.stc(), as_.sbb(x, y); break;
        case CcKind::logic: as_.test(x, x); break;
        case CcKind::inc: as_.sub(r14, 1), as_.bt(r15d, 0), as_.inc(x); break;
        case CcKind::dec: as_.add(r14, 1), as_.bt(r15d, 0), as_.dec(x); break;
        }
        finish();
    }
    as_.align(8);
    std::uint8_t const* table = as_.executable(as_.here());
    for (std::uint8_t const* e : entries) as_.dq(reinterpret_cast<std::uint64_t>(e));
    restore_flags = start();
    as_.push(r14);
    as_.push(r15);
    as_.mov(r15d, dword[CONTEXT(cc_op)]);
    as_.mov(r14, reinterpret_cast<std::uint64_t>(table));
    as_.jmp(qword[r14 + r15 * 8]);
}

// The C++ function sees the frame; on its false ZF is set, or the block is left.
std::uint8_t const* Thunks::emit_slow(void const* function, bool keep_vectors, SlowKind kind) {
    std::uint8_t const* at = start();
    for (int r : caller_saved) as_.push(as_.r64(r));
    constexpr int frame_at = pushed_bytes;
    static_assert(frame_at % 16 == 0);
    auto save_slot = [&](int i) { return as_.in_memory(host::rsp, frame_at + frame::xmm_save + 32 * i); };
    if (keep_vectors)
        for (int i = 0; i < 16; ++i) as_.vector_store(32, save_slot(i), i);
    as_.vzeroupper();
    as_.stmxcsr(dword[rsp + (frame_at + frame::mxcsr)]);
    as_.mov(rdi, rbp);
    as_.mov(rsi, r14);
    as_.mov(rdx, r15);
    as_.lea(rcx, ptr[rsp + frame_at]);
    as_.call_function(function);
    as_.ldmxcsr(dword[rsp + (frame_at + frame::mxcsr)]);
    if (keep_vectors)
        for (int i = 0; i < 16; ++i) as_.vector_load(32, i, save_slot(i));
    if (kind == SlowKind::value) as_.mov(r15, qword[rsp + (frame_at + frame::buffer + 24)]);
    as_.test(al, al);
    for (std::size_t i = std::size(caller_saved); i-- > 0;) as_.pop(as_.r64(caller_saved[i]));
    if (kind == SlowKind::access) as_.bind(as_.jump_if(Cond::e), leave_access);
    as_.ret();
    return at;
}

// An access through the TLB; `slow` on a miss. Through r14 and r15, which holds the ExitWord.
std::uint8_t const* Thunks::emit_look_up(unsigned log2_bytes, bool write, std::uint8_t const* slow) {
    constexpr int frame_at = 8; // the return address
    int const bytes = 1 << log2_bytes, table = write ? int(offsetof(TlbBank, write)) : 0;
    std::uint8_t const* at = start();
    as_.mov(qword[rsp + (frame_at + frame::keep1)], r15);
    as_.mov(qword[rsp + (frame_at + frame::keep0)], r14);
    as_.rorx(r15d, r14d, 8);
    as_.and_(r15d, int(TlbBank::entries - 1) << 4);
    as_.add(r15, qword[CONTEXT(bank)]);
    as_.add(r14, bytes - 1);
    as_.and_(r14, -4096);
    as_.cmp(r14, qword[r15 + table]);
    as_.mov(r14, qword[rsp + (frame_at + frame::keep0)]);
    Fixup miss = as_.jump_if(Cond::ne);
    as_.add(r14, qword[r15 + (table + 8)]);
    int const buffer = frame_at + frame::buffer;
    ir::Type const type = log2_bytes < 3 ? ir::Type(log2_bytes) : ir::Type::i64;
    for (int done = 0; done < bytes; done += 8) {
        auto guest = as_.sized(type, r14 + done), host = as_.sized(type, rsp + (buffer + done));
        as_.mov(as_.reg(type, host::r15), write ? host : guest);
        as_.mov(write ? guest : host, as_.reg(type, host::r15));
    }
    as_.ret();
    as_.bind(miss);
    as_.mov(r15, qword[rsp + (frame_at + frame::keep1)]);
    as_.jump_to(slow);
    return at;
}

void Thunks::emit_slow_paths() {
    auto address = [](auto* f) { return reinterpret_cast<void const*>(f); };
    for (bool keep : {false, true}) {
        load[keep] = emit_slow(address(vmm_x64_load), keep, SlowKind::access);
        store[keep] = emit_slow(address(vmm_x64_store), keep, SlowKind::access);
        load_for_write[keep] = emit_slow(address(vmm_x64_load_for_write), keep, SlowKind::access);
        for (unsigned log2_bytes = 0; log2_bytes < look_up_load[keep].size(); ++log2_bytes) {
            look_up_load[keep][log2_bytes] = emit_look_up(log2_bytes, false, load[keep]);
            look_up_store[keep][log2_bytes] = emit_look_up(log2_bytes, true, store[keep]);
        }
        rmw_pointer[keep] = emit_slow(address(vmm_x64_rmw_pointer), keep, SlowKind::value);
        rmw[keep] = emit_slow(address(vmm_x64_rmw), keep, SlowKind::value);
    }
    alignment_fault = emit_slow(address(vmm_x64_alignment_fault), false, SlowKind::plain);
    divide = emit_slow(address(vmm_x64_divide), true, SlowKind::plain);
    // run_vec works on the guest's register: bring it up to date, and the host's afterwards.
    std::uint8_t const* call = emit_slow(address(vmm_x64_vector), true, SlowKind::plain);
    merge_mxcsr = start();
    emit_merge_mxcsr();
    as_.ret();
    load_mxcsr = start();
    emit_load_mxcsr();
    as_.ret();
    vector = start();
    as_.sub(rsp, 8);
    emit_merge_mxcsr();
    as_.add(rsp, 8);
    // The slow path puts back the MXCSR it found, so that is done before loading the new one.
    as_.jump_to(call);
}

// Both: at one call's depth, through r14 and r15 kept on the stack.
void Thunks::emit_merge_mxcsr() {
    if (!context_.fp_control) return;
    as_.push(r14);
    as_.push(r15);
    as_.stmxcsr(dword[rsp - 8]);
    as_.mov(r14d, dword[rsp - 8]);
    as_.and_(r14d, mxcsr_flags);
    as_.mov(r15, qword[CONTEXT(fp_control)]);
    as_.or_(dword[r15], r14d);
    as_.pop(r15);
    as_.pop(r14);
}
void Thunks::emit_load_mxcsr() {
    if (!context_.fp_control) return;
    as_.push(r14);
    as_.push(r15);
    as_.mov(r15, qword[CONTEXT(fp_control)]);
    as_.mov(r14d, dword[r15]);
    as_.and_(r14d, 0xffff);
    as_.or_(r14d, default_mxcsr);
    as_.mov(dword[rsp - 8], r14d);
    as_.ldmxcsr(dword[rsp - 8]);
    as_.pop(r15);
    as_.pop(r14);
}

std::uint8_t const* Thunks::helper(std::uint16_t id) {
    auto [it, fresh] = helpers_.try_emplace(id, nullptr);
    if (!fresh) return it->second;
    GuestInfo::Helper h = guest_.helper(id);
    bool state = h.reads || h.writes || h.exits;
    std::uint8_t const* at = start();
    as_.sub(rsp, 8);
    if (state) emit_merge_mxcsr();
    store_pins(state);
    as_.mov(rdi, rbp);
    as_.mov(rsi, r14);
    as_.mov(rdx, r15);
    as_.mov(rcx, r11);
    as_.call_function(reinterpret_cast<void const*>(h.function));
    as_.mov(r14, rax);
    if (state) emit_load_mxcsr();
    load_pins(h.writes || h.exits);
    as_.cmp(dword[CONTEXT(fault_pending)], 0);
    as_.lea(rsp, ptr[rsp + 8]);
    as_.ret();
    it->second = at;
    made_.push_back({id, at, std::size_t(as_.here() - at)});
    return at;
}

} // namespace vmm::tcg::x64
