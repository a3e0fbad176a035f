// Emitter: how blocks end.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

constexpr unsigned code_page_bytes = 4096;

#define CONTEXT(field) rbp + int(offsetof(EngineContext, field))

void Emitter::emit_terminal() {
    if (wide_) as_.vzeroupper();
    if (std::holds_alternative<Dispatch>(block_.terminal)) {
        need_memory();
        as_.jump_to(thunks_.dispatch);
    } else if (auto* j = std::get_if<Jump>(&block_.terminal)) {
        emit_edge(out_.sites[0], j->target, std::nullopt);
    } else if (auto* b = std::get_if<Branch>(&block_.terminal)) {
        need_rflags();
        bool backward = b->taken <= guest_offset_;
        // A loop's way back falls through, because it looks for exit requests.
        if (backward) {
            emit_edge(out_.sites[1], b->not_taken, invert(b->cc));
            emit_edge(out_.sites[0], b->taken, std::nullopt);
        } else {
            emit_edge(out_.sites[0], b->taken, b->cc);
            emit_edge(out_.sites[1], b->not_taken, std::nullopt);
        }
    } else if (auto* z = std::get_if<BranchNonZero>(&block_.terminal)) {
        clobber_flags();
        int r = reg_of(z->value);
        as_.test(as_.reg(z->type, r), as_.reg(z->type, r));
        bool backward = z->taken <= guest_offset_;
        if (backward) {
            emit_edge(out_.sites[1], z->not_taken, Cond::e);
            emit_edge(out_.sites[0], z->taken, std::nullopt);
        } else {
            emit_edge(out_.sites[0], z->taken, Cond::ne);
            emit_edge(out_.sites[1], z->not_taken, std::nullopt);
        }
    } else {
        emit_indirect(std::get<Indirect>(block_.terminal));
    }
}

// A direct jump to in-page offset `target`, on condition or always. Backward ones look for exit requests first. The
// condition codes are stored in the stub, which links to blocks that do not want them go around.
void Emitter::emit_edge(LinkSite& site, std::int32_t target, std::optional<Cond> when) {
    if (target < 0 || target >= std::int32_t(code_page_bytes)) return emit_far_edge(target, when);
    site.owner = &out_;
    site.offset = target;
    bool backward = target <= guest_offset_;
    std::optional<Fixup> asked;
    FlagState saved = flags_;
    if (backward && !when) {
        clobber_flags();
        as_.cmp(dword[CONTEXT(exit_request)], 0);
        asked = as_.jump_if(Cond::ne);
    }
    FlagState state = flags_;
    Fixup near = when ? as_.jump_if(*when) : as_.jump();
    site.near = near.field;
    site.flags_stored = state.memory;
    flags_ = saved;
    LinkSite* at = &site;
    bool check_in_stub = backward && when;
    cold_.push_back([=, this] {
        std::uint64_t const name = reinterpret_cast<std::uint64_t>(at);
        if (asked) {
            as_.bind(*asked);
            store_for_exit(state);
            as_.mov(r15, name);
            as_.jump_to(thunks_.leave_exit_request);
        }
        at->stub = as_.here();
        as_.bind(near);
        store_for_exit(state);
        if (check_in_stub) {
            as_.cmp(dword[CONTEXT(exit_request)], 0);
            Fixup quiet = as_.jump_if(Cond::e);
            as_.mov(r15, name);
            as_.jump_to(thunks_.leave_exit_request);
            as_.bind(quiet);
        }
        Fixup far = as_.jump();
        as_.bind(far);
        at->far = far.field;
        at->exit = as_.here();
        as_.mov(r15, name);
        as_.jump_to(thunks_.leave_next);
    });
    if (check_in_stub) site.near = nullptr; // never around the check
}

// To the guest address in a register: through the cache of addresses, without leaving translated code.
void Emitter::emit_indirect(Indirect const& t) {
    need_memory();
    flags_.rflags = false;
    if (val(t.target).place == Place::scratch && val(t.target).reg == host::r14) {
        // there already
    } else {
        move_to(host::r14, t.target, Type::i64);
    }
    emit_address_jump();
}

// A direct jump into another page, whose mapping may change: found by its guest address like an indirect one.
void Emitter::emit_far_edge(std::int32_t target, std::optional<Cond> when) {
    auto go = [=, this] {
        as_.mov(r14, qword[CONTEXT(pc_base)]);
        as_.lea(r14, ptr[r14 + int(target)]);
        emit_address_jump();
    };
    if (!when) {
        need_memory();
        return go();
    }
    Fixup taken = as_.jump_if(*when);
    FlagState state = flags_;
    cold_.push_back([=, this] {
        as_.bind(taken);
        store_for_exit(state);
        go();
    });
}

// To the guest address in r14, the condition codes being stored.
void Emitter::emit_address_jump() {
    if (block_.alone) return as_.jump_to(thunks_.leave_indirect);
    as_.cmp(dword[CONTEXT(exit_request)], 0);
    Fixup asked = as_.jump_if(Cond::ne);
    emit_address_lookup(as_, thunks_.look_further);
    as_.bind(asked, thunks_.leave_indirect_exit);
}

} // namespace vmm::tcg::x64
