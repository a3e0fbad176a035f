// System instructions: flags, ports, tables, control registers, caches, waiting.
#include "vmm/tcg/guest/x86/handlers.h"
#include "vmm/tcg/guest/x86/lifter.h"

#include <cstddef>

namespace vmm::tcg::x86 {

using namespace vmm::x86;

// --- no operation, ordering, caches

bool lift_nop(Lifter&) { return true; }
bool lift_pause(Lifter& l) { return l.call(HelperId::pause), true; }
bool lift_fence(Lifter& l) { return l.b.emit({.op = Opcode::fence}), true; }
bool lift_clflush(Lifter& l) { return l.call(HelperId::cache_line, l.address(0, 1, false)), true; }

// --- flags

static bool change_carry(Lifter& l, Opcode op, std::int64_t mask) {
    ValueId const flags = l.b.emit({.op = Opcode::get_flags, .type = Type::i64});
    l.b.emit({.op = Opcode::put_flags, .a = l.b.binary(op, Type::i64, flags, l.constant(mask))});
    return true;
}
bool lift_clc(Lifter& l) { return change_carry(l, Opcode::and_, ~std::int64_t(flag::cf)); }
bool lift_stc(Lifter& l) { return change_carry(l, Opcode::or_, flag::cf); }
bool lift_cmc(Lifter& l) { return change_carry(l, Opcode::xor_, flag::cf); }

// Flags that are not condition codes.
static bool change_flags(Lifter& l, Opcode op, std::int64_t mask) {
    ValueId const flags = l.b.get(Type::i64, slot::rflags);
    l.b.put(Type::i64, slot::rflags, l.b.binary(op, Type::i64, flags, l.constant(mask)));
    return true;
}
bool lift_cld(Lifter& l) { return change_flags(l, Opcode::and_, ~std::int64_t(flag::df)); }
bool lift_std(Lifter& l) { return change_flags(l, Opcode::or_, flag::df); }

// Nobody sees the interrupt shadow unless an interrupt waits: then STI is executed again, alone, and so is a CLI in the
// same block, in front of which it would be taken.
bool lift_cli(Lifter& l) {
    if (l.mode.cpl() || l.mode.is(Mode::single)) return l.call_and_end(HelperId::cli);
    if (l.window >= 0 && l.window != l.start) l.call(HelperId::interrupt_window);
    return change_flags(l, Opcode::and_, ~std::int64_t(flag::if_));
}
bool lift_sti(Lifter& l) {
    constexpr std::int32_t room = 4096 - 15; // for the next instruction
    if (l.mode.cpl() || l.mode.is(Mode::single) || l.next() > room) return l.call_and_end(HelperId::sti);
    l.call(HelperId::interrupt_window);
    l.window = l.next();
    return change_flags(l, Opcode::or_, flag::if_);
}

static ValueId flags_image(Lifter& l) {
    if (l.mode.is(Mode::vm86)) return l.call(HelperId::pushf_image, l.constant(l.d.operand_bytes()));
    constexpr std::int64_t kept = ~std::int64_t(flag::arithmetic | flag::vm | flag::rf);
    ValueId const system = l.b.binary(Opcode::and_, Type::i64, l.b.get(Type::i64, slot::rflags), l.constant(kept));
    return l.b.binary(Opcode::or_, Type::i64, system, l.b.emit({.op = Opcode::get_flags, .type = Type::i64}));
}

bool lift_pushf(Lifter& l) {
    ValueId const image = flags_image(l);
    l.push(l.b.trunc(ir::int_type(l.d.operand_bytes()), image));
    return true;
}

bool lift_popf(Lifter& l) {
    Type const t = ir::int_type(l.d.operand_bytes()), stack = l.stack_type();
    ValueId const image = l.b.zext(Type::i64, l.stack_load(t));
    ValueId const top = l.b.zext(Type::i64, l.b.lea(stack, l.gpr(stack, rsp), none, 0, ir::size_of(t)));
    return l.call_and_end(HelperId::popf, l.constant(ir::size_of(t)), image, top);
}

// --- ports

static ValueId port(Lifter& l, unsigned i) {
    return l.is_immediate(i) ? l.constant(l.immediate(i) & 0xff) : l.b.zext(Type::i64, l.gpr(Type::i16, rdx));
}
static unsigned port_bytes(Lifter const& l) {
    if (!(l.d.insn.opcode & 1)) return 1;
    return l.d.operand_bytes() == 2 ? 2 : 4;
}

bool lift_in(Lifter& l) {
    unsigned const bytes = port_bytes(l);
    ValueId const value = l.call(HelperId::port_in, port(l, 1), l.constant(bytes));
    l.put_gpr(rax, l.b.trunc(ir::int_type(bytes), value));
    return true;
}

bool lift_out(Lifter& l) {
    unsigned const bytes = port_bytes(l);
    ValueId const value = l.b.zext(Type::i64, l.gpr(ir::int_type(bytes), rax));
    return l.call_and_end(HelperId::port_out, port(l, 0), l.constant(bytes), value);
}

// --- privileged instructions: #GP(0) unless at CPL 0 (v8086 code is at CPL 3)

// Runs `lift` at CPL 0.
template <class Lift> static bool privileged(Lifter& l, Lift lift) {
    if (l.mode.cpl()) return l.raise(vec::gp, 0);
    return lift();
}

bool lift_hlt(Lifter& l) {
    return privileged(l, [&] { return l.call_and_end(HelperId::hlt); });
}
bool lift_clts(Lifter& l) {
    return privileged(l, [&] { return l.call_and_end(HelperId::clts); });
}
bool lift_invd(Lifter& l) {
    return privileged(l, [&] { return l.call(HelperId::invd), true; });
}
bool lift_rdmsr(Lifter& l) {
    return privileged(l, [&] { return l.call(HelperId::rdmsr), true; });
}
bool lift_wrmsr(Lifter& l) {
    return privileged(l, [&] { return l.call_and_end(HelperId::wrmsr); });
}
bool lift_xsetbv(Lifter& l) {
    return privileged(l, [&] { return l.call_and_end(HelperId::xsetbv); });
}
bool lift_swapgs(Lifter& l) {
    return privileged(l, [&] {
        ValueId const now = l.b.get(Type::i64, slot::segment_base(gs));
        ValueId const other = l.b.get(Type::i64, slot::kernel_gs_base);
        l.b.put(Type::i64, slot::segment_base(gs), other);
        l.b.put(Type::i64, slot::kernel_gs_base, now);
        return true;
    });
}
bool lift_invlpg(Lifter& l) {
    if (!l.is_memory(0)) return l.undefined();
    return privileged(l, [&] {
        // The segment's base counts, its limit does not.
        ValueId at = l.effective_address(0);
        Seg const s = l.segment(0);
        if (!l.mode.is64() || s == fs || s == gs)
            at = l.b.lea(Type::i64, l.b.get(Type::i64, slot::segment_base(s)), at, 0, 0);
        return l.call_and_end(HelperId::invlpg, at);
    });
}
bool lift_invpcid(Lifter& l) {
    return privileged(l, [&] {
        ValueId const type = l.b.zext(Type::i64, l.read(0));
        return l.call_and_end(HelperId::invpcid, type, l.address(1, 16, false));
    });
}

// --- descriptor-table registers

static bool load_table(Lifter& l, HelperId id) {
    return privileged(l, [&] {
        unsigned const base = l.mode.is64() ? 8 : l.d.operand_bytes() == 2 ? 3 : 4;
        return l.call_and_end(id, l.address(0, l.mode.is64() ? 10 : 6, false), l.constant(base));
    });
}
bool lift_lgdt(Lifter& l) { return load_table(l, HelperId::lgdt); }
bool lift_lidt(Lifter& l) { return load_table(l, HelperId::lidt); }

static bool store_table(Lifter& l, HelperId id) {
    unsigned const base = l.mode.is64() ? 8 : 4;
    l.call(id, l.address(0, 2 + base, true), l.constant(base));
    return true;
}
bool lift_sgdt(Lifter& l) { return store_table(l, HelperId::sgdt); }
bool lift_sidt(Lifter& l) { return store_table(l, HelperId::sidt); }

// Memory gets 16 bits, a register the operand size.
static bool store_word(Lifter& l, HelperId id) {
    ValueId const value = l.call(id);
    if (l.is_memory(0)) return l.store(0, Type::i16, l.b.trunc(Type::i16, value)), true;
    l.write(0, l.b.trunc(l.type(0), value));
    return true;
}
bool lift_sldt(Lifter& l) { return store_word(l, HelperId::sldt); }
bool lift_str(Lifter& l) { return store_word(l, HelperId::str); }
bool lift_smsw(Lifter& l) { return store_word(l, HelperId::smsw); }

static ValueId selector(Lifter& l, unsigned i) { return l.b.zext(Type::i64, l.read(i, Type::i16)); }
bool lift_lmsw(Lifter& l) {
    return privileged(l, [&] { return l.call_and_end(HelperId::lmsw, selector(l, 0)); });
}
bool lift_lldt(Lifter& l) {
    return privileged(l, [&] { return l.call(HelperId::lldt, selector(l, 0)), true; });
}
bool lift_ltr(Lifter& l) {
    return privileged(l, [&] { return l.call(HelperId::ltr, selector(l, 0)), true; });
}

// LAR, LSL: when the selector does not qualify the whole destination stays.
static bool describe_selector(Lifter& l, HelperId id) {
    Type const t = l.type(0), whole = t == Type::i16 ? t : Type::i64;
    unsigned const destination = l.register_number(0);
    ValueId const old = l.gpr(Type::i64, destination);
    ValueId const result = l.call(id, selector(l, 1), old, l.constant(ir::size_of(t)));
    l.put_gpr(destination, l.b.trunc(whole, result));
    return true;
}
bool lift_lar(Lifter& l) { return describe_selector(l, HelperId::lar); }
bool lift_lsl(Lifter& l) { return describe_selector(l, HelperId::lsl); }
bool lift_verr(Lifter& l) { return l.call(HelperId::verr, selector(l, 0)), true; }
bool lift_verw(Lifter& l) { return l.call(HelperId::verw, selector(l, 0)), true; }

// --- identification, time, random numbers

bool lift_cpuid(Lifter& l) { return l.call(HelperId::cpuid), true; }
bool lift_rdtsc(Lifter& l) { return l.call(HelperId::rdtsc), true; }
bool lift_rdtscp(Lifter& l) { return l.call(HelperId::rdtscp), true; }
bool lift_rdpmc(Lifter& l) { return l.call(HelperId::rdpmc), true; }
bool lift_xgetbv(Lifter& l) { return l.call(HelperId::xgetbv), true; }
bool lift_rdpkru(Lifter& l) { return l.call(HelperId::rdpkru), true; }
bool lift_wrpkru(Lifter& l) { return l.call_and_end(HelperId::wrpkru); }

bool lift_rdpid(Lifter& l) {
    l.put_gpr(l.register_number(0), l.b.zext(Type::i64, l.b.get(Type::i32, slot::tsc_aux)));
    return true;
}

bool lift_rdrand(Lifter& l) {
    Type const t = l.type(0);
    l.write(0, l.b.trunc(t, l.call(HelperId::random_value, l.constant(ir::size_of(t)))));
    return true;
}

// --- segment bases, access override

static bool read_base(Lifter& l, Seg s) {
    l.write(0, l.b.trunc(l.type(0), l.call(HelperId::read_fs_gs_base, l.constant(s))));
    return true;
}
static bool write_base(Lifter& l, Seg s) {
    ValueId const value = l.b.zext(Type::i64, l.read(0));
    return l.call_and_end(HelperId::write_fs_gs_base, l.constant(s), value);
}
bool lift_rdfsbase(Lifter& l) { return read_base(l, fs); }
bool lift_rdgsbase(Lifter& l) { return read_base(l, gs); }
bool lift_wrfsbase(Lifter& l) { return write_base(l, fs); }
bool lift_wrgsbase(Lifter& l) { return write_base(l, gs); }

// #UD, not #GP, above CPL 0 (SDM vol. 2, STAC).
static bool change_access(Lifter& l, Opcode op, std::int64_t mask) {
    if (l.mode.cpl()) return l.undefined();
    change_flags(l, op, mask);
    l.call(HelperId::select_view);
    return true;
}
bool lift_stac(Lifter& l) { return change_access(l, Opcode::or_, flag::ac); }
bool lift_clac(Lifter& l) { return change_access(l, Opcode::and_, ~std::int64_t(flag::ac)); }

// --- waiting

bool lift_monitor(Lifter& l) {
    if (l.mode.cpl()) return l.undefined();
    ValueId const offset = l.b.zext(Type::i64, l.gpr(ir::int_type(l.d.address_bytes()), rax));
    l.call(HelperId::monitor, l.linear(l.data_segment(), offset, 1, false));
    return true;
}
bool lift_mwait(Lifter& l) { return l.mode.cpl() ? l.undefined() : l.call_and_end(HelperId::mwait); }
bool lift_rsm(Lifter& l) { return l.call_and_end(HelperId::rsm); }

} // namespace vmm::tcg::x86
