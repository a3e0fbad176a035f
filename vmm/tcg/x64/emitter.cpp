#include "vmm/tcg/x64/emitter.h"

#include <cstddef>

namespace vmm::tcg::x64 {

using namespace ir;
using namespace Xbyak::util;

static AccessGroups const& plan_and_group(Block const& block, Pins const& pins, GuestInfo const& guest,
                                          EmitBuffers& b) {
    make_plan(block, pins, guest, b.plan);
    return b.groups.run(block, b.plan);
}

Emitter::Emitter(Assembler& as, Thunks& thunks, Pins const& pins, GuestInfo const& guest, EngineContext& context,
                 EmitOptions options, Block const& block, X64Block& out, EmitBuffers& b)
    : as_(as), thunks_(thunks), pins_(pins), guest_(guest), context_(context), options_(options), block_(block),
      out_(out), buffers_(b), marks_(b.marks), plan_(b.plan), groups_(plan_and_group(block, pins, guest, b)),
      values_(b.now.values), vectors_(b.now.vectors), owner_(b.now.owner), xmm_owner_(b.now.xmm_owner),
      free_frames_(b.now.free_frames), free_vector_frames_(b.now.free_vector_frames), next_frame_(b.now.next_frame),
      next_vector_frame_(b.now.next_vector_frame), guest_offset_(b.now.guest_offset), flags_(b.now.flags),
      done_(b.now.done), cold_(b.cold), live_vector_list_(b.live_vectors) {
    values_.assign(block.insts.size(), {});
    vectors_.assign(plan_.vectors ? block.insts.size() : 0, {});
    done_.assign(block.insts.size(), 0);
    owner_.fill(none);
    xmm_owner_.fill(none);
    free_frames_.clear(), free_vector_frames_.clear();
    next_frame_ = next_vector_frame_ = 0;
    guest_offset_ = block.start;
    flags_ = {};
    b.used_points = 0;
    live_vector_list_.clear();
    marks_.clear();
}

void Emitter::run() {
    for (std::uint16_t call : plan_.calls) thunks_.helper(std::uint16_t(inst(call).imm));
    as_.align(16);
    out_.indirect = as_.here();
    thunks_.copy_entry(block_.start);
    out_.code = as_.here();
    out_.start = block_.start;
    out_.guest_bytes = block_.guest_bytes;
    out_.flags_dead = plan_.flags_dead_at_entry && !options_.count_instructions;
    if (options_.count_instructions) {
        as_.add(qword[rbp + int(offsetof(EngineContext, insn_count))], block_.guest_insns);
    }
    if (options_.profile) { // the condition codes are in memory here
        as_.mov(r15, reinterpret_cast<std::uint64_t>(&out_.executions));
        as_.inc(qword[r15]);
    }
    auto group = groups_.groups.begin();
    for (std::uint32_t i = 0; i < block_.insts.size(); ++i) {
        if (group != groups_.groups.end() && group->first == i) {
            emit_group(*group);
            i = group++->last;
        } else {
            emit(i);
        }
    }
    marks_.push_back({as_.here(), mark_end});
    cur_ = std::uint32_t(block_.insts.size());
    locked_ = 0, xmm_locked_ = 0;
    emit_terminal();
    marks_.push_back({as_.here(), mark_slow_paths});
    cold_.run();
    if (block_.crosses_page) {
        out_.checked = as_.here();
        as_.mov(r14, qword[rbp + int(offsetof(EngineContext, pc_base))]);
        as_.lea(r14, ptr[r14 + block_.start]);
        emit_address_jump();
    }
    out_.host_bytes = std::uint32_t(as_.here() - out_.indirect);
}

void Emitter::emit(std::uint32_t i) {
    Inst const& n = inst(i);
    if (n.op == Opcode::insn_start) {
        guest_offset_ = std::int32_t(n.imm);
        marks_.push_back({as_.here(), guest_offset_});
        return;
    }
    if (plan_.values[i].folded) values_[i].place = Place::address;
    if (plan_.values[i].unneeded || done_[i]) return;
    cur_ = i;
    locked_ = 0;
    xmm_locked_ = 0;
    switch (n.op) {
    case Opcode::constant: values_[i] = {.place = Place::immediate, .imm = n.imm}; return;
    case Opcode::get:
        if (n.type >= Type::v128)
            emit_vector_get(i);
        else
            emit_get(i);
        break;
    case Opcode::put:
        if (n.type >= Type::v128)
            emit_vector_put(i);
        else
            emit_put(i);
        break;
    case Opcode::call: emit_call(i); break;
    default: VMM_ASSERT(emit_vector(i) || emit_memory(i) || emit_integer(i)); break;
    }
    release_operands(i);
    if (plan_.vectors) release_vectors(i);
}

// Whether the slot is the guest's MXCSR, whose exception flags are in the host's while we run.
bool Emitter::touches_mxcsr(Inst const& n) const {
    if (!context_.fp_control) return false;
    std::int64_t at = reinterpret_cast<std::uint8_t*>(context_.fp_control) - reinterpret_cast<std::uint8_t*>(&context_);
    return n.imm < at + 4 && at < n.imm + std::int64_t(size_of(n.type));
}

void Emitter::emit_get(std::uint32_t i) {
    Inst const& n = inst(i);
    ValuePlan const& p = plan_.values[i];
    Value& v = values_[i];
    if (touches_mxcsr(n)) {
        clobber_flags();
        as_.call_to(thunks_.merge_mxcsr);
    }
    if (p.pin < 0) {
        v = {.place = Place::slot, .disp = std::int32_t(n.imm)};
        if (p.in_place) {
            v.home = v.disp;
            return;
        }
    } else {
        Pins::Pin const& pin = pins_.pin[unsigned(p.pin)];
        if (n.imm == pin.offset)
            v = {.place = Place::pinned, .reg = std::int8_t(pin.host)};
        else if (n.imm == pin.offset + 1 && n.type == Type::i8)
            v = {.place = Place::high, .reg = std::int8_t(pin.host)};
        else {
            as_.mov(qword[rbp + int(pin.offset)], as_.r64(pin.host));
            v = {.place = Place::slot, .disp = std::int32_t(n.imm)};
            int r = take_scratch();
            move_to(r, ValueId(i), n.type);
            return finish_result(i, r);
        }
        if (p.in_place) return;
    }
    int r = take_scratch();
    move_to(r, ValueId(i), n.type);
    v = {};
    finish_result(i, r);
}

void Emitter::emit_put(std::uint32_t i) {
    if (plan_.values[root(inst(i).a)].put_at == i || plan_.values[i].dead) return;
    std::int8_t pin = plan_.values[i].pin;
    if (pin >= 0)
        put_pinned(i, unsigned(pin));
    else
        put_slot(i);
}

void Emitter::put_pinned(std::uint32_t i, unsigned pin_index) {
    Inst const& n = inst(i);
    Pins::Pin const& pin = pins_.pin[pin_index];
    int p = pin.host;
    std::int64_t at = n.imm - pin.offset;
    if (at == 0 && n.type != Type::i32) {
        if (n.type == Type::i64) {
            forget_register(p);
            return move_to(p, n.a, Type::i64);
        }
        int r = reg_of(n.a);
        forget_register(p);
        if (r != p) as_.mov(as_.reg(n.type, p), as_.reg(n.type, r));
        return;
    }
    int r = reg_of(n.a);
    if (at == 1 && n.type == Type::i8) {
        if (r == p) {
            r = take_scratch();
            as_.mov(as_.r32(r), as_.r32(p));
        }
        forget_register(p);
        as_.rorx(as_.r64(p), as_.r64(p), 8);
        as_.mov(as_.r8b(p), as_.r8b(r));
        as_.rorx(as_.r64(p), as_.r64(p), 56);
        return;
    }
    forget_register(p);
    as_.mov(qword[rbp + int(pin.offset)], as_.r64(p));
    as_.mov(context_at(n.type, n.imm), as_.reg(n.type, r));
    as_.mov(as_.r64(p), qword[rbp + int(pin.offset)]);
}

void Emitter::put_slot(std::uint32_t i) {
    Inst const& n = inst(i);
    save_slot_vectors(n.imm, size_of(n.type), none);
    forget_slot(n.imm, size_of(n.type));
    std::int64_t imm;
    if (is_immediate(n.a, n.type, imm))
        as_.mov(context_at(n.type, n.imm), std::uint64_t(imm));
    else
        as_.mov(context_at(n.type, n.imm), as_.reg(n.type, reg_of(n.a)));
    Value& stored = val(n.a);
    if (plan_.values[i].in_place) {
        if (stored.place == Place::scratch) stored.home = std::int32_t(n.imm);
        if (stored.place == Place::frame) {
            free_frames_.push_back(stored.disp);
            stored = {.place = Place::slot, .disp = std::int32_t(n.imm), .home = std::int32_t(n.imm)};
        }
    }
    if (touches_mxcsr(n)) {
        clobber_flags();
        as_.call_to(thunks_.load_mxcsr);
    }
}

void Emitter::emit_call(std::uint32_t i) {
    Inst const& n = inst(i);
    GuestInfo::Helper h = guest_.helper(std::uint16_t(n.imm));
    if (h.pure)
        clobber_flags();
    else
        need_memory();
    spill_vectors(h.writes);
    if (plan_.wide) as_.vzeroupper();
    for (int r : {host::r11, host::r14, host::r15}) {
        if (owner(r) == none)
            forget_register(r);
        else { // also arguments: they are loaded from where they now are
            forget_register(r);
            spill(r);
        }
        lock(r);
    }
    ValueId arguments[] = {n.a, n.b, n.c};
    int const places[] = {host::r14, host::r15, host::r11};
    for (unsigned k = 0; k < 3; ++k)
        if (arguments[k] == none)
            as_.mov(as_.r32(places[k]), 0);
        else
            move_to(places[k], arguments[k], Type::i64);
    flags_.rflags = false;
    as_.call_to(thunks_.helper(std::uint16_t(n.imm)));
    if (h.faults || h.memory || h.exits) fault_here(as_.jump_if(Cond::ne));
    if (h.writes || h.exits || h.reads) flags_ = {};
    if (plan_.values[i].uses) finish_result(i, host::r14);
}

} // namespace vmm::tcg::x64
