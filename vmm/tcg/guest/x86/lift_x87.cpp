// x87 instructions: which helper does each. Encodings are regular, so this goes by opcode bytes rather than mnemonics.
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/vector_lifter.h"

namespace vmm::tcg::x86 {

namespace {

constexpr unsigned environment32_bytes = 28, state32_bytes = 108;

struct Encoding {
    unsigned group, reg, modrm; // group: first byte - D8
    unsigned fop() const { return group << 8 | modrm; }
};

ValueId argument(Lifter& l, Encoding e, unsigned segment, bool wide = false) {
    return l.constant(x87_arg::make(e.fop(), segment, wide, l.start));
}

bool lift_register_form(Lifter& l, Encoding e) {
    if (e.group == 3 && e.modrm == 0xe2) return l.call(HelperId::fnclex), true;
    if (e.group == 3 && e.modrm == 0xe3) return l.call(HelperId::fninit), true;
    if (e.group == 3 && (e.modrm == 0xe0 || e.modrm == 0xe1 || e.modrm == 0xe4)) return true; // FNENI, FNDISI, FNSETPM
    if (e.group == 7 && e.modrm == 0xe0) {                                                    // FNSTSW AX
        l.b.put(Type::i16, slot::gpr(vmm::x86::rax), l.b.get(Type::i16, slot::fsw));
        return true;
    }
    l.call(HelperId::x87_register, argument(l, e, vmm::x86::ds));
    return true;
}

bool store_word(Lifter& l, std::size_t from) {
    l.store(0, Type::i16, l.b.get(Type::i16, from));
    return true;
}

// Bytes of a source that the block loads itself, else 0.
unsigned source_bytes(Encoding e) {
    switch (e.group) {
    case 0:
    case 2: return 4;
    case 4: return 8;
    case 6: return 2;
    case 1:
    case 3: return e.reg == 0 ? 4 : 0;
    case 5: return e.reg == 0 ? 8 : 0;
    default: return e.reg == 0 ? 2 : e.reg == 5 ? 8 : 0;
    }
}

bool lift_memory_form(Lifter& l, Encoding e, unsigned i) {
    if (e.group == 1 && e.reg == 7) return store_word(l, slot::fcw);
    if (e.group == 5 && e.reg == 7) return store_word(l, slot::fsw);
    if (e.group == 1 && e.reg == 5) { // FLDCW
        l.call(HelperId::x87_wait);
        l.call(HelperId::fldcw, l.b.zext(Type::i64, l.load(i, Type::i16)));
        return true;
    }
    if (unsigned bytes = source_bytes(e)) {
        l.call(HelperId::x87_wait);
        ValueId value = l.b.zext(Type::i64, l.load(i, ir::int_type(bytes)));
        l.call(HelperId::x87_source, argument(l, e, l.segment(i)), value, l.effective_address(i));
        return true;
    }
    unsigned bytes = l.operand(i).size / 8u;
    bool wide = bytes == environment32_bytes || bytes == state32_bytes;
    bool writes = l.operand(i).actions & ZYDIS_OPERAND_ACTION_MASK_WRITE;
    ValueId address = l.address(i, bytes, writes);
    l.call(HelperId::x87_memory, argument(l, e, l.segment(i), wide), address, l.effective_address(i));
    return true;
}

} // namespace

bool lift_x87(Lifter& l) {
    if (l.d.insn.mnemonic == ZYDIS_MNEMONIC_FWAIT) {
        if (l.mode.is(Mode::cr0_mp) && l.mode.is(Mode::cr0_ts)) return l.raise(vmm::x86::vec::nm);
        l.call(HelperId::x87_wait);
        return true;
    }
    if (l.mode.is(Mode::cr0_em) || l.mode.is(Mode::cr0_ts)) return l.raise(vmm::x86::vec::nm);
    auto const& raw = l.d.insn.raw.modrm;
    Encoding e{.group = l.d.insn.opcode & 7u, .reg = raw.reg, .modrm = unsigned(raw.mod << 6 | raw.reg << 3 | raw.rm)};
    if (raw.mod == 3) return lift_register_form(l, e);
    for (unsigned i = 0; i < l.operand_count(); i++)
        if (l.is_memory(i)) return lift_memory_form(l, e, i);
    return l.undefined();
}

} // namespace vmm::tcg::x86
