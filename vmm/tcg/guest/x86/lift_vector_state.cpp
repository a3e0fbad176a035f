// Instructions on the whole vector and floating-point state: MXCSR, FXSAVE and XSAVE families, EMMS, VZEROUPPER.
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/vector_lifter.h"

namespace vmm::tcg::x86 {

namespace {

constexpr unsigned fxsave_bytes = 512;

// True when the instruction goes on; false: it has raised #NM.
bool not_switched(Lifter& l) {
    if (!l.mode.is(Mode::cr0_ts)) return true;
    l.raise(vmm::x86::vec::nm);
    return false;
}

bool fxsave_family(Lifter& l, HelperId helper, bool write, bool wide) {
    if (l.mode.is(Mode::cr0_em)) return l.undefined();
    if (!not_switched(l)) return true;
    ValueId address = l.address(0, fxsave_bytes, write);
    ValueId format = l.constant(wide && l.mode.is64() ? 1 : 0);
    if (write)
        l.call(helper, address, format);
    else
        l.call_and_end(helper, address, format);
    return true;
}

bool xsave_family(Lifter& l, XsaveForm form, bool wide) {
    if (!not_switched(l)) return true;
    bool restore = form == XsaveForm::restore;
    ValueId address = l.address(0, 1, !restore); // the helper's accesses go on from there
    ValueId how = l.constant(int(form) | (wide && l.mode.is64() ? xsave_wide : 0));
    if (restore)
        l.call_and_end(HelperId::xrstor, address, how);
    else
        l.call(HelperId::xsave, address, how);
    return true;
}

bool load_mxcsr(VectorLifter& v) {
    ValueId value = v.l.load(0, Type::i32);
    v.l.call_and_end(HelperId::ldmxcsr, v.b.zext(Type::i64, value));
    return true;
}

// Upper halves, or everything, of registers 0-15 (0-7 outside 64-bit code).
bool zero_registers(VectorLifter& v, bool all) {
    ValueId zero = v.widen(v.l.constant(0));
    for (unsigned i = 0; i < (v.l.mode.is64() ? 16u : 8u); i++) {
        if (all) v.b.put(Type::v128, slot::xmm(i), zero);
        v.b.put(Type::v128, slot::xmm(i) + 16, zero);
    }
    return true;
}

} // namespace

bool lift_vector_state(VectorLifter& v, bool& known) {
    Lifter& l = v.l;
    // Those with the SSE or AVX gate.
    auto gated = [&](auto&& handler) {
        auto gate = v.sse_gate();
        if (gate == VectorLifter::Gate::undefined) return l.undefined();
        return gate == VectorLifter::Gate::raised || handler();
    };
    switch (l.d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_LDMXCSR:
    case ZYDIS_MNEMONIC_VLDMXCSR: return gated([&] { return load_mxcsr(v); });
    case ZYDIS_MNEMONIC_STMXCSR:
    case ZYDIS_MNEMONIC_VSTMXCSR:
        return gated([&] {
            l.store(0, Type::i32, v.b.get(Type::i32, slot::mxcsr));
            return true;
        });
    case ZYDIS_MNEMONIC_VZEROUPPER: return gated([&] { return zero_registers(v, false); });
    case ZYDIS_MNEMONIC_VZEROALL: return gated([&] { return zero_registers(v, true); });
    case ZYDIS_MNEMONIC_EMMS: {
        auto gate = v.mmx_gate();
        if (gate != VectorLifter::Gate::open) return gate == VectorLifter::Gate::raised;
        v.enter_mmx(); // TOP becomes 0 here as well
        v.b.put(Type::i8, slot::fpu_tags, l.constant(0, Type::i8));
        return true;
    }
    case ZYDIS_MNEMONIC_FXSAVE: return fxsave_family(l, HelperId::fxsave, true, false);
    case ZYDIS_MNEMONIC_FXSAVE64: return fxsave_family(l, HelperId::fxsave, true, true);
    case ZYDIS_MNEMONIC_FXRSTOR: return fxsave_family(l, HelperId::fxrstor, false, false);
    case ZYDIS_MNEMONIC_FXRSTOR64: return fxsave_family(l, HelperId::fxrstor, false, true);
    case ZYDIS_MNEMONIC_XSAVE: return xsave_family(l, XsaveForm::save, false);
    case ZYDIS_MNEMONIC_XSAVE64: return xsave_family(l, XsaveForm::save, true);
    case ZYDIS_MNEMONIC_XSAVEOPT: return xsave_family(l, XsaveForm::optimized, false);
    case ZYDIS_MNEMONIC_XSAVEOPT64: return xsave_family(l, XsaveForm::optimized, true);
    case ZYDIS_MNEMONIC_XSAVEC: return xsave_family(l, XsaveForm::compacted, false);
    case ZYDIS_MNEMONIC_XSAVEC64: return xsave_family(l, XsaveForm::compacted, true);
    case ZYDIS_MNEMONIC_XRSTOR: return xsave_family(l, XsaveForm::restore, false);
    case ZYDIS_MNEMONIC_XRSTOR64: return xsave_family(l, XsaveForm::restore, true);
    default: known = false; return false;
    }
}

} // namespace vmm::tcg::x86
