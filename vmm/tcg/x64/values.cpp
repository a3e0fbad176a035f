// Emitter: scratch registers and where values are.
#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

namespace {
constexpr int scratch_registers[] = {host::r11, host::r14, host::r15};

std::int64_t sign_extended(std::int64_t v, Type t) {
    switch (t) {
    case Type::i8: return std::int8_t(v);
    case Type::i16: return std::int16_t(v);
    case Type::i32: return std::int32_t(v);
    default: return v;
    }
}
} // namespace

std::int32_t Emitter::take_frame() {
    if (!free_frames_.empty()) {
        std::int32_t at = free_frames_.back();
        free_frames_.pop_back();
        return at;
    }
    VMM_ASSERT(next_frame_ < frame::max_spills);
    return frame::spills + 8 * std::int32_t(next_frame_++);
}

void Emitter::forget_register(int r) {
    if (r == host::r15) lose_addend();
    if (flags_.recipe.uses(r)) drop_recipe();
}

// r15 is about to change: accesses to come find the group's addend in the frame.
void Emitter::lose_addend() {
    if (addend_held_ && !addend_saved_ && group_ && cur_ <= group_->last) {
        as_.mov(frame_at(Type::i64, frame::group), r15);
        addend_saved_ = true;
    }
    addend_held_ = false;
}

void Emitter::forget_slot(std::int64_t offset, unsigned size) {
    Recipe const& r = flags_.recipe;
    if (r.slot >= 0 && offset < r.slot + 8 && r.slot < offset + std::int64_t(size)) drop_recipe();
}

// One of its operands is about to change.
void Emitter::drop_recipe() {
    Recipe old = flags_.recipe;
    flags_.recipe = {}, flags_.carry = false;
    if (cur_ < block_.insts.size() && !plan_.values[cur_].flags_live_before) return;
    if (flags_.rflags || flags_.memory) return;
    emit_store_recipe(as_, old);
    flags_.memory = true;
}

void Emitter::spill(int r) {
    Value& v = values_[owner(r)];
    owner(r) = none;
    if (v.home >= 0) {
        v = {.place = Place::slot, .disp = v.home, .home = v.home};
        return;
    }
    std::int32_t at = take_frame();
    as_.mov(frame_at(Type::i64, at), as_.r64(r));
    v = {.place = Place::frame, .disp = at};
}

void Emitter::evict(int r) {
    forget_register(r);
    if (owner(r) == none) return;
    Value& v = values_[owner(r)];
    for (int to : scratch_registers)
        if (to != r && owner(to) == none && !locked(to) && to == host::r11) {
            forget_register(to);
            as_.mov(as_.r64(to), as_.r64(r));
            owner(to) = owner(r);
            owner(r) = none;
            v.reg = std::int8_t(to);
            return;
        }
    spill(r);
}

void Emitter::take(int r) {
    evict(r);
    lock(r);
}

int Emitter::take_scratch() {
    for (int r : scratch_registers)
        if (owner(r) == none && !locked(r)) {
            forget_register(r);
            lock(r);
            return r;
        }
    int best = -1;
    for (int r : scratch_registers)
        if (!locked(r) && (best < 0 || plan_.values[owner(r)].last_use > plan_.values[owner(best)].last_use)) best = r;
    VMM_ASSERT(best >= 0);
    forget_register(best);
    spill(best);
    lock(best);
    return best;
}

void Emitter::release_operands(std::uint32_t i) {
    auto release = [&](ValueId v) {
        if (v == none) return;
        ValueId r = root(v);
        if (plan_.values[r].last_use > i) return;
        Value& value = values_[r];
        if (value.place == Place::scratch && owner(value.reg) == r) owner(value.reg) = none;
        if (value.place == Place::frame) free_frames_.push_back(value.disp);
        if (value.place == Place::scratch || value.place == Place::frame) value = {};
    };
    Inst const& n = inst(i);
    // A folded address keeps its inputs for as long as itself.
    for (ValueId v : {n.a, n.b, n.c}) {
        if (v == none) continue;
        ValueId r = root(v);
        if (plan_.values[r].folded) release(inst(r).a), release(inst(r).b);
        release(v);
    }
    if (plan_.values[i].uses == 0) release(ValueId(i));
}

bool Emitter::is_immediate(ValueId v, Type t, std::int64_t& imm) {
    if (val(v).place != Place::immediate) return false;
    imm = sign_extended(val(v).imm, t);
    return imm == std::int32_t(imm);
}

Xbyak::Address Emitter::memory_of(ValueId v, Type t) {
    Value const& x = val(v);
    return x.place == Place::slot ? context_at(t, x.disp) : frame_at(t, x.disp);
}

void Emitter::move_to(int r, ValueId v, Type t) {
    Value const& x = val(v);
    switch (x.place) {
    case Place::immediate: as_.load_constant(r, t == Type::i64 ? x.imm : std::int64_t(std::uint32_t(x.imm))); return;
    case Place::pinned:
    case Place::scratch:
        if (t == Type::i64) {
            if (x.reg != r) as_.mov(as_.r64(r), as_.r64(x.reg));
        } else {
            as_.mov(as_.r32(r), as_.r32(x.reg));
        }
        return;
    case Place::high: as_.rorx(as_.r64(r), as_.r64(x.reg), 8); return;
    case Place::slot:
    case Place::frame: {
        // A wider read than the value's own type would see its neighbours: harmless in a frame slot, not in the
        // context.
        Type own = inst(root(v)).type;
        if (own < t && x.place == Place::slot) t = own;
        if (t == Type::i64)
            as_.mov(as_.r64(r), memory_of(v, t));
        else if (t == Type::i32)
            as_.mov(as_.r32(r), memory_of(v, t));
        else
            as_.movzx(as_.r32(r), memory_of(v, t));
        return;
    }
    case Place::address: return load_address(r, operands_of(v));
    default: VMM_UNREACHABLE();
    }
}

int Emitter::reg_of(ValueId v) {
    Value& x = val(v);
    if (x.place == Place::pinned || x.place == Place::scratch) {
        if (x.place == Place::scratch) lock(x.reg);
        return x.reg;
    }
    int r = take_scratch();
    move_to(r, v, inst(root(v)).type == Type::i64 || x.place == Place::frame ? Type::i64 : inst(root(v)).type);
    bool keep = plan_.values[root(v)].last_use > cur_ &&
                (x.place == Place::frame || x.place == Place::slot || x.place == Place::high);
    if (keep) {
        if (x.place == Place::frame) free_frames_.push_back(x.disp);
        x = {.place = Place::scratch, .reg = std::int8_t(r), .home = x.home};
        owner(r) = root(v);
    }
    return r;
}

int Emitter::pinned_target(std::uint32_t i) const {
    std::uint32_t put = plan_.values[i].put_at;
    return put == no_index ? -1 : pins_.pin[unsigned(plan_.values[put].pin)].host;
}

int Emitter::result_register(std::uint32_t i, std::initializer_list<int> busy) {
    int p = pinned_target(i);
    if (p < 0) return take_scratch();
    for (int b : busy)
        if (b == p) return take_scratch();
    forget_register(p);
    return p;
}

void Emitter::finish_result(std::uint32_t i, int r) {
    int p = pinned_target(i);
    if (p >= 0) {
        if (p != r) {
            forget_register(p);
            Type t = inst(i).type;
            as_.mov(as_.reg(t, p), as_.reg(t, r));
        }
        values_[i] = {.place = Place::pinned, .reg = std::int8_t(p)};
        return;
    }
    if (plan_.values[i].uses == 0) return;
    if (!is_scratch(r)) { // an operand's register that is kept: never ours
        VMM_UNREACHABLE();
    }
    values_[i] = {.place = Place::scratch, .reg = std::int8_t(r)};
    owner(r) = ValueId(i);
}

Xbyak::Address Emitter::host_at(Type t, HostAddress const& a) {
    Xbyak::RegExp e = as_.r64(a.base) + a.disp;
    if (a.index >= 0) e = as_.r64(a.base) + as_.r64(a.index) + a.disp;
    return as_.sized(t, e);
}

} // namespace vmm::tcg::x64
