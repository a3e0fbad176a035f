// Operands: registers, effective and linear addresses, the stack.
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

// --- registers

static unsigned gpr_number(ZydisRegister r) {
    if (r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_BL) return r - ZYDIS_REGISTER_AL;
    if (r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH) return r - ZYDIS_REGISTER_AH;
    if (r >= ZYDIS_REGISTER_SPL && r <= ZYDIS_REGISTER_R15B) return r - ZYDIS_REGISTER_SPL + 4;
    if (r >= ZYDIS_REGISTER_AX && r <= ZYDIS_REGISTER_R15W) return r - ZYDIS_REGISTER_AX;
    if (r >= ZYDIS_REGISTER_EAX && r <= ZYDIS_REGISTER_R15D) return r - ZYDIS_REGISTER_EAX;
    VMM_ASSERT(r >= ZYDIS_REGISTER_RAX && r <= ZYDIS_REGISTER_R15);
    return r - ZYDIS_REGISTER_RAX;
}

static bool is_gpr(ZydisRegister r) { return r >= ZYDIS_REGISTER_AL && r <= ZYDIS_REGISTER_R15; }
static bool is_high_byte(ZydisRegister r) { return r >= ZYDIS_REGISTER_AH && r <= ZYDIS_REGISTER_BH; }

unsigned Lifter::register_number(unsigned i) const {
    ZydisRegister r = operand(i).reg.value;
    if (is_gpr(r)) return gpr_number(r);
    return unsigned(ZydisRegisterGetId(r));
}

std::size_t Lifter::register_slot(unsigned i) const {
    ZydisRegister r = operand(i).reg.value;
    return slot::gpr(gpr_number(r)) + is_high_byte(r);
}

ValueId Lifter::read(unsigned i, Type t) {
    switch (operand(i).type) {
    case ZYDIS_OPERAND_TYPE_IMMEDIATE: return constant(immediate(i), t);
    case ZYDIS_OPERAND_TYPE_REGISTER: return b.get(t, register_slot(i));
    default: return load(i, t);
    }
}

void Lifter::write(unsigned i, ValueId v) {
    if (is_memory(i)) return store(i, b.type_of(v), v);
    if (b.type_of(v) == Type::i32) v = b.zext(Type::i64, v);
    b.put(b.type_of(v), register_slot(i), v);
}

void Lifter::put_gpr(unsigned number, ValueId v) {
    if (b.type_of(v) == Type::i32) v = b.zext(Type::i64, v);
    b.put(b.type_of(v), slot::gpr(number), v);
}

// --- memory operands

ValueId Lifter::effective_address(unsigned i) { return effective_address(i, 0, none); }

ValueId Lifter::effective_address(unsigned i, std::int64_t displacement, ValueId byte_index) {
    return b.zext(Type::i64, address_sum(i, ir::int_type(d.address_bytes()), displacement, byte_index));
}

ValueId Lifter::address_sum(unsigned i, Type t, std::int64_t displacement, ValueId byte_index) {
    auto const& mem = operand(i).mem;
    displacement += mem.disp.value;
    ValueId base = none, index = none;
    if (mem.base == ZYDIS_REGISTER_RIP || mem.base == ZYDIS_REGISTER_EIP)
        base = b.trunc(t, b.pc(next()));
    else if (mem.base != ZYDIS_REGISTER_NONE)
        base = gpr(t, gpr_number(mem.base));
    if (mem.index != ZYDIS_REGISTER_NONE) index = gpr(t, gpr_number(mem.index));
    if (base == none && index == none) base = constant(displacement, t), displacement = 0;
    unsigned const shift = index == none || mem.scale < 2 ? 0 : mem.scale == 2 ? 1 : mem.scale == 4 ? 2 : 3;
    if (base == none) base = constant(0, t);
    if (index != none || displacement) base = b.lea(t, base, index, shift, displacement);
    if (byte_index != none) base = b.lea(t, base, b.trunc(t, byte_index), 0, 0);
    return base;
}

std::uint8_t Lifter::base_hint(unsigned i) const {
    ZydisRegister r = operand(i).mem.base;
    return is_gpr(r) ? std::uint8_t(gpr_number(r)) : ir::no_base_hint;
}

vmm::x86::Seg Lifter::segment(unsigned i) const { return vmm::x86::Seg(operand(i).mem.segment - ZYDIS_REGISTER_ES); }

vmm::x86::Seg Lifter::data_segment() const {
    static constexpr struct {
        ZydisInstructionAttributes attribute;
        vmm::x86::Seg segment;
    } overrides[] = {{ZYDIS_ATTRIB_HAS_SEGMENT_ES, vmm::x86::es},
                     {ZYDIS_ATTRIB_HAS_SEGMENT_CS, vmm::x86::cs},
                     {ZYDIS_ATTRIB_HAS_SEGMENT_SS, vmm::x86::ss},
                     {ZYDIS_ATTRIB_HAS_SEGMENT_FS, vmm::x86::fs},
                     {ZYDIS_ATTRIB_HAS_SEGMENT_GS, vmm::x86::gs}};
    for (auto const& o : overrides)
        if (d.has(o.attribute)) return o.segment;
    return vmm::x86::ds;
}

ValueId Lifter::linear(vmm::x86::Seg s, ValueId offset, unsigned bytes, bool write) {
    bool const has_base = s == vmm::x86::fs || s == vmm::x86::gs;
    if (mode.is64()) return has_base ? b.lea(Type::i64, b.get(Type::i64, slot::segment_base(s)), offset, 0, 0) : offset;
    if (mode.is(Mode::flat) && !has_base && !(s == vmm::x86::cs && write)) return offset;
    std::int64_t const access = s | std::int64_t(bytes) << 8 | std::int64_t(write) << 31;
    return call(HelperId::segment_address, constant(access), offset);
}

ValueId Lifter::address(unsigned i, unsigned bytes, bool write, std::int64_t displacement) {
    return linear(segment(i), effective_address(i, displacement, none), bytes, write);
}

ValueId Lifter::address_indexed(unsigned i, ValueId byte_index, unsigned bytes, bool write) {
    return linear(segment(i), effective_address(i, 0, byte_index), bytes, write);
}

ValueId Lifter::load(unsigned i, Type t, std::uint8_t attributes) {
    bool const write = attributes & ir::mem_for_write;
    return b.load(t, address(i, ir::size_of(t), write), attributes, base_hint(i));
}

void Lifter::store(unsigned i, Type t, ValueId v, std::uint8_t attributes) {
    b.store(t, address(i, ir::size_of(t), true), v, attributes, base_hint(i));
}

ValueId Lifter::rmw(unsigned i, Opcode op, Type t, ValueId v, bool sets_flags, ValueId v2) {
    return rmw_at(address(i, ir::size_of(t), true), i, op, t, v, sets_flags, v2);
}

ValueId Lifter::rmw_at(ValueId linear_address, unsigned i, Opcode op, Type t, ValueId v, bool sets_flags, ValueId v2) {
    return b.emit({.op = op,
                   .type = t,
                   .sets_flags = sets_flags,
                   .memory = std::uint8_t(d.lock() ? ir::mem_lock : 0),
                   .base_hint = base_hint(i),
                   .a = linear_address,
                   .b = v,
                   .c = v2});
}

// --- vectors

ValueId Lifter::read_vector(unsigned i, Type t, std::uint8_t attributes) {
    return is_memory(i) ? load(i, t, attributes) : xmm(t, register_number(i));
}

void Lifter::put_xmm(unsigned number, ValueId v, bool zero_upper) {
    Type const t = b.type_of(v);
    b.put(t, slot::xmm(number), v);
    if (!zero_upper) return;
    if (t == Type::i32) b.put(Type::i32, slot::xmm(number) + 4, constant(0, Type::i32));
    for (unsigned at = t == Type::i32 ? 8 : ir::size_of(t); at < 32; at += 8)
        b.put(Type::i64, slot::xmm(number) + at, constant(0));
}

// --- stack

ValueId Lifter::stack_address(std::int64_t displacement, unsigned bytes, bool write) {
    ValueId sp = gpr(stack_type(), vmm::x86::rsp);
    if (displacement) sp = b.lea(stack_type(), sp, none, 0, displacement);
    return linear(vmm::x86::ss, b.zext(Type::i64, sp), bytes, write);
}

void Lifter::adjust_stack(std::int64_t delta) {
    put_gpr(vmm::x86::rsp, b.lea(stack_type(), gpr(stack_type(), vmm::x86::rsp), none, 0, delta));
}

void Lifter::stack_store(ValueId v, std::int64_t displacement) {
    Type const t = b.type_of(v);
    b.store(t, stack_address(displacement, ir::size_of(t), true), v, 0, vmm::x86::rsp);
}

void Lifter::push(ValueId v) {
    std::int64_t const bytes = ir::size_of(b.type_of(v));
    stack_store(v, -bytes);
    adjust_stack(-bytes);
}

ValueId Lifter::stack_load(Type t, std::int64_t displacement) {
    return b.load(t, stack_address(displacement, ir::size_of(t), false), 0, vmm::x86::rsp);
}

// --- ways out

ValueId Lifter::guest_pc(std::int32_t offset) {
    ValueId pc = b.pc(offset);
    return mode.is64() ? pc : b.zext(Type::i64, b.trunc(Type::i32, pc));
}

bool Lifter::call_and_end(HelperId id, ValueId a, ValueId b2, ValueId c) {
    b.put(Type::i64, slot::rip, guest_pc(next()));
    call(id, a, b2, c);
    end(ir::Dispatch{});
    return true;
}

bool Lifter::raise_with(std::uint8_t vector, std::int64_t error) {
    ValueId const number = constant(vector);
    call(HelperId::raise_exception, number, constant(error));
    end(ir::Dispatch{});
    return true;
}

} // namespace vmm::tcg::x86
