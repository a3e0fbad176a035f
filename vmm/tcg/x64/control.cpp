// Emitter: how blocks end.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

constexpr unsigned code_page_bytes = 4096;

#define CONTEXT(field) rbp + int(offsetof(EngineContext, field))

void Emitter::emit_terminal() {
    if (plan_.wide) as_.vzeroupper();
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

// In cold code: the block is left at the site, whose flags say where the condition codes are.
void Emitter::leave_at(LinkSite const& site, bool r15_wanted, std::uint8_t const* way) {
    if (r15_wanted) as_.mov(qword[rsp + (frame::registers + 8 * host::r15)], r15);
    as_.mov(r15, reinterpret_cast<std::uint64_t>(&site));
    as_.jump_to(way);
}

// A direct jump to in-page offset `target`, on condition or always. Backward ones look for exit requests first.
void Emitter::emit_edge(LinkSite& site, std::int32_t target, std::optional<Cond> when) {
    if (target < 0 || target >= std::int32_t(code_page_bytes)) return emit_far_edge(target, when);
    site.owner = &out_;
    site.offset = target;
    bool backward = target <= guest_offset_;
    LinkSite* at = &site;
    if (backward && when) {
        Fixup taken = as_.jump_if(*when);
        FlagState state = flags_;
        return cold_.push_back([=, this] {
            as_.bind(taken);
            store_for_exit(state);
            as_.cmp(dword[CONTEXT(exit_request)], 0);
            Fixup asked = as_.jump_if(Cond::ne);
            at->near = as_.jump().field;
            at->stub = as_.here();
            as_.bind({at->near});
            leave_at(*at, false, thunks_.leave_edge);
            as_.bind(asked);
            leave_at(*at, false, thunks_.leave_edge_exit);
        });
    }
    Fixup asked;
    FlagState saved = flags_;
    if (backward) {
        clobber_flags();
        as_.cmp(dword[CONTEXT(exit_request)], 0);
        asked = as_.jump_if(Cond::ne);
    }
    Fixup near = when ? as_.jump_if(*when) : as_.jump();
    site.near = near.field;
    site.flags = exit_word(flags_).pack();
    bool const r15_wanted = !flags_.memory && flags_.recipe.uses(host::r15);
    flags_ = saved;
    cold_.push_back([=, this] {
        if (asked.field) {
            as_.bind(asked);
            leave_at(*at, r15_wanted, thunks_.leave_edge_exit);
        }
        at->stub = as_.here();
        as_.bind(near);
        leave_at(*at, r15_wanted, thunks_.leave_edge);
    });
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
    thunks_.copy_address_jump();
}

} // namespace vmm::tcg::x64
