// Emitter: groups of accesses behind one TLB check (groups.h). When the check fails, the instructions of the group are
// executed by a second copy, in cold code, in which each access looks for itself: faults, devices and page borders are
// met in their order there.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>
#include <memory>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

Emitter::Allocation Emitter::allocation() const {
    return {values_,     vectors_,           owner_,        xmm_owner_, free_frames_, free_vector_frames_,
            next_frame_, next_vector_frame_, guest_offset_, flags_,     done_};
}

void Emitter::resume(Allocation const& a) {
    values_ = a.values, vectors_ = a.vectors;
    owner_ = a.owner, xmm_owner_ = a.xmm_owner;
    free_frames_ = a.free_frames, free_vector_frames_ = a.free_vector_frames;
    next_frame_ = a.next_frame, next_vector_frame_ = a.next_vector_frame;
    guest_offset_ = a.guest_offset;
    flags_ = a.flags;
    done_ = a.done;
}

// Whether code that follows finds everything in the same places.
bool Emitter::same_places(Allocation const& a) const {
    return owner_ == a.owner && xmm_owner_ == a.xmm_owner && free_frames_ == a.free_frames &&
           free_vector_frames_ == a.free_vector_frames && flags_ == a.flags && done_ == a.done &&
           guest_offset_ == a.guest_offset;
}

void Emitter::emit_group(AccessGroup const& g) {
    cur_ = g.first;
    locked_ = 0, xmm_locked_ = 0;
    clobber_flags();
    Address a = address_of(inst(g.first).a);
    reserve_temps();
    Fixup miss = check_range(a, g.low, g.high, g.write);
    as_.mov(qword[rsp + frame::group], r15);
    auto checked = std::make_shared<Allocation>(allocation());
    group_ = &g;
    addend_held_ = true;
    for (std::uint32_t i = g.first; i <= g.last; ++i) emit(i);
    group_ = nullptr;
    addend_held_ = false;
    std::uint8_t const* end = as_.here();
    auto after = std::make_shared<Allocation>(allocation());
    cold_.push_back([=, this, first = g.first, last = g.last] {
        as_.bind(miss);
        resume(*checked);
        for (std::uint32_t i = first; i <= last; ++i) emit(i);
        VMM_ASSERT(same_places(*after));
        as_.jump_to(end);
    });
}

} // namespace vmm::tcg::x64
