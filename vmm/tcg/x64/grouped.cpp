// Emitter: groups of accesses behind one TLB check (groups.h). When the check fails, the instructions of the group are
// executed by a second copy, in cold code, in which each access looks for itself: faults, devices and page borders are
// met in their order there.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

Allocation const& Emitter::remember_places() {
    if (buffers_.used_points == buffers_.points.size()) buffers_.points.emplace_back();
    return buffers_.points[buffers_.used_points++] = buffers_.now;
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
    Allocation const* checked = &remember_places();
    group_ = &g;
    addend_held_ = true, addend_saved_ = false;
    for (std::uint32_t i = g.first; i <= g.last; ++i) emit(i);
    group_ = nullptr;
    addend_held_ = false;
    std::uint8_t const* end = as_.here();
    Allocation const* after = &remember_places();
    cold_.push_back([=, this, first = g.first, last = g.last] {
        as_.bind(miss);
        buffers_.now = *checked;
        second_copy_ = true;
        for (std::uint32_t i = first; i <= last; ++i) emit(i);
        second_copy_ = false;
        VMM_ASSERT(same_places(*after));
        as_.jump_to(end);
    });
}

} // namespace vmm::tcg::x64
