// Vector instructions done by helpers: string compares, masked moves, gathers.
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/vector_lifter.h"

namespace vmm::tcg::x86 {

namespace {

bool string_compare(VectorLifter& v, bool explicit_length, bool mask_result) {
    Lifter& l = v.l;
    ValueId second = v.source(1, 0); // never aligned
    std::uint64_t a = std::uint64_t(l.immediate(2) & 0xff) | std::uint64_t(v.number(0)) << pcmpstr_arg::register_shift;
    if (explicit_length) a |= pcmpstr_arg::explicit_length;
    if (explicit_length && l.d.insn.attributes & ZYDIS_ATTRIB_HAS_REX && l.d.insn.raw.rex.W)
        a |= pcmpstr_arg::wide_length;
    if (v.vex()) {
        a |= pcmpstr_arg::vex;
        if (explicit_length && l.mode.is64() && l.d.insn.raw.vex.W) a |= pcmpstr_arg::wide_length;
    }
    if (mask_result) a |= pcmpstr_arg::mask_result;
    ValueId low = v.to_gpr(VecOp::movq_to_gpr, Type::i64, second);
    ValueId high = v.to_gpr(VecOp::pextrq, Type::i64, second, 1);
    ValueId flags = l.call(HelperId::pcmpstr, l.constant(std::int64_t(a)), low, high);
    v.b.emit({.op = Opcode::put_flags, .type = Type::i64, .a = flags});
    return true;
}

// MASKMOVQ, MASKMOVDQU: byte-wise, to DS:rDI (or the segment override).
bool mask_move_bytes(VectorLifter& v) {
    Lifter& l = v.l;
    bool mmx = v.is_mmx(0);
    // The memory operand is implicit, so the decoder's visible ones do not name its segment.
    vmm::x86::Seg segment = vmm::x86::ds;
    struct Override {
        ZydisInstructionAttributes attribute;
        vmm::x86::Seg segment;
    };
    static constexpr Override overrides[] = {{ZYDIS_ATTRIB_HAS_SEGMENT_CS, vmm::x86::cs},
                                             {ZYDIS_ATTRIB_HAS_SEGMENT_SS, vmm::x86::ss},
                                             {ZYDIS_ATTRIB_HAS_SEGMENT_ES, vmm::x86::es},
                                             {ZYDIS_ATTRIB_HAS_SEGMENT_FS, vmm::x86::fs},
                                             {ZYDIS_ATTRIB_HAS_SEGMENT_GS, vmm::x86::gs}};
    for (auto const& o : overrides)
        if (l.d.has(o.attribute)) segment = o.segment;
    ValueId offset = v.b.zext(Type::i64, l.gpr(ir::int_type(l.d.address_bytes()), vmm::x86::rdi));
    ValueId address = l.linear(segment, offset, mmx ? 8 : 16, true);
    std::uint64_t a = masked_arg::store | std::uint64_t(v.number(0)) << masked_arg::data_shift |
                      std::uint64_t(v.number(1)) << masked_arg::mask_shift;
    if (mmx) a |= masked_arg::mmx;
    l.call(HelperId::vector_mask_move, l.constant(std::int64_t(a)), address);
    if (mmx) v.enter_mmx();
    return true;
}

// VMASKMOVPS/PD, VPMASKMOVD/Q: reg, mask, mem or mem, mask, reg.
bool mask_move(VectorLifter& v, unsigned log2_element) {
    Lifter& l = v.l;
    bool store = l.is_memory(0);
    bool wide = v.widest() == Type::v256;
    ValueId address = l.address(store ? 0 : 2, wide ? 32 : 16, store);
    std::uint64_t a = std::uint64_t(log2_element) << masked_arg::element_shift |
                      std::uint64_t(v.number(store ? 2 : 0)) << masked_arg::data_shift |
                      std::uint64_t(v.number(1)) << masked_arg::mask_shift;
    if (store) a |= masked_arg::store;
    if (wide) a |= masked_arg::wide_vector;
    l.call(HelperId::vector_mask_move, l.constant(std::int64_t(a)), address);
    return true;
}

// Gathers: destination, memory with a vector index, mask; the three registers must differ.
bool gather(VectorLifter& v, unsigned log2_element, bool index64) {
    Lifter& l = v.l;
    auto const& memory = l.operand(1).mem;
    auto register_id = [](ZydisRegister r) { return unsigned(ZydisRegisterGetId(r)); };
    unsigned data = v.number(0), mask = v.number(2), index = register_id(memory.index);
    if (data == mask || data == index || mask == index) return l.undefined();
    Type offset_type = ir::int_type(l.d.address_bytes());
    ValueId base = l.constant(memory.disp.value);
    if (memory.base != ZYDIS_REGISTER_NONE) {
        ValueId reg = v.b.zext(Type::i64, l.gpr(offset_type, register_id(memory.base)));
        base = v.b.binary(Opcode::add, Type::i64, reg, base);
    }
    bool wide = l.operand(0).size == 256 || ZydisRegisterGetClass(memory.index) == ZYDIS_REGCLASS_YMM;
    unsigned scale = memory.scale == 8 ? 3 : memory.scale == 4 ? 2 : memory.scale == 2 ? 1 : 0;
    std::uint64_t a = std::uint64_t(log2_element) << masked_arg::element_shift |
                      std::uint64_t(data) << masked_arg::data_shift | std::uint64_t(mask) << masked_arg::mask_shift |
                      std::uint64_t(index) << masked_arg::index_shift | std::uint64_t(scale) << masked_arg::scale_shift;
    if (wide) a |= masked_arg::wide_vector;
    if (index64) a |= masked_arg::index64;
    if (offset_type == Type::i32) a |= masked_arg::address32;
    a |= std::uint64_t(l.segment(1)) << masked_arg::segment_shift;
    l.call(HelperId::vector_gather, l.constant(std::int64_t(a)), base);
    return true;
}

} // namespace

bool lift_vector_helped(VectorLifter& v, bool& known) {
    switch (v.l.d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_PCMPESTRI:
    case ZYDIS_MNEMONIC_VPCMPESTRI: return string_compare(v, true, false);
    case ZYDIS_MNEMONIC_PCMPESTRM:
    case ZYDIS_MNEMONIC_VPCMPESTRM: return string_compare(v, true, true);
    case ZYDIS_MNEMONIC_PCMPISTRI:
    case ZYDIS_MNEMONIC_VPCMPISTRI: return string_compare(v, false, false);
    case ZYDIS_MNEMONIC_PCMPISTRM:
    case ZYDIS_MNEMONIC_VPCMPISTRM: return string_compare(v, false, true);
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVDQU: return mask_move_bytes(v);
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VPMASKMOVD: return mask_move(v, 2);
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: return mask_move(v, 3);
    case ZYDIS_MNEMONIC_VGATHERDPS:
    case ZYDIS_MNEMONIC_VPGATHERDD: return gather(v, 2, false);
    case ZYDIS_MNEMONIC_VGATHERDPD:
    case ZYDIS_MNEMONIC_VPGATHERDQ: return gather(v, 3, false);
    case ZYDIS_MNEMONIC_VGATHERQPS:
    case ZYDIS_MNEMONIC_VPGATHERQD: return gather(v, 2, true);
    case ZYDIS_MNEMONIC_VGATHERQPD:
    case ZYDIS_MNEMONIC_VPGATHERQQ: return gather(v, 3, true);
    default: known = false; return false;
    }
}

} // namespace vmm::tcg::x86
