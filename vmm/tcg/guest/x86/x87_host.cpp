// run_x87 on the host's x87. Values go in and out through memory, so that the host's registers are empty between calls.
#include "vmm/tcg/guest/x86/x87_host.h"

namespace vmm::tcg::x86 {

namespace {

constexpr std::uint16_t host_control = 0x37f, all_masked = 0x3f, sticky = 0x7f;

// What one asm statement works on.
struct Frame {
    X87Operation& o;
    std::uint16_t normal = host_control;
    std::uint8_t trap; // some exception is unmasked: clear the flags before the host can act on them
};

} // namespace

// The operation with operands already chosen by `text`, then: read the status, restore the host's control word, empty
// the stack, on which `text` leaves two values. Where it leaves one (FPTAN out of range) the second pop underflows,
// which is harmless with exceptions masked; where an unmasked exception left more, EMMS drops them.
#define X87_RUN(text)                                                                                                  \
    asm volatile(                                                                                                      \
        "fldcw %[control]\n\t" text "\n\tfnstsw %[status]\n\t"                                                         \
        "cmpb $0, %[trap]\n\tje 1f\n\tfnclex\n1:\tfldcw %[normal]\n\t"                                                 \
        "fstpt %[result]\n\tfstpt %[second]\n\t"                                                                       \
        "cmpb $0, %[trap]\n\tje 2f\n\temms\n2:"                                                                        \
        : [status] "=m"(f.o.status), [result] "=m"(f.o.result), [second] "=m"(f.o.second), [memory] "+m"(f.o.memory)   \
        : [control] "m"(f.o.control), [x] "m"(f.o.x), [y] "m"(f.o.y), [trap] "m"(f.trap), [normal] "m"(f.normal)       \
        : "st", "st(1)", "st(2)", "st(3)", "st(4)", "st(5)", "st(6)", "st(7)", "cc", "memory")
#define X87_CASE(op, text)                                                                                             \
    case X87Op::op: X87_RUN(text); break;
// Both operands: x on top, y below.
#define X87_TWO(op, insn) X87_CASE(op, "fldt %[y]\n\tfldt %[x]\n\t" insn)
// One result from two operands or one: zeros below stand in for the second value.
#define X87_JOIN(op, insn) X87_CASE(op, "fldz\n\tfldt %[y]\n\tfldt %[x]\n\t" insn)
#define X87_ONE(op, insn) X87_CASE(op, "fldz\n\tfldt %[x]\n\t" insn)
#define X87_PUSH(op, insn) X87_CASE(op, "fldt %[x]\n\t" insn)
#define X87_NONE(op, insn) X87_CASE(op, "fldz\n\t" insn)
#define X87_MEMORY(op, insn) X87_CASE(op, "fldz\n\tfldt %[x]\n\t" insn " %[memory]")
// Instructions that always pop get a copy to pop.
#define X87_POPPING(op, insn) X87_CASE(op, "fldz\n\tfldt %[x]\n\tfld %%st(0)\n\t" insn " %[memory]")
#define X87_GROUP(suffix, i, size)                                                                                     \
    X87_MEMORY(add_##suffix, "f" i "add" size)                                                                         \
    X87_MEMORY(mul_##suffix, "f" i "mul" size)                                                                         \
    X87_MEMORY(com_##suffix, "f" i "com" size)                                                                         \
    X87_MEMORY(comp_##suffix, "f" i "com" size)                                                                        \
    X87_MEMORY(sub_##suffix, "f" i "sub" size)                                                                         \
    X87_MEMORY(subr_##suffix, "f" i "subr" size)                                                                       \
    X87_MEMORY(div_##suffix, "f" i "div" size)                                                                         \
    X87_MEMORY(divr_##suffix, "f" i "divr" size)

static void run_arithmetic(X87Op op, Frame& f) {
    switch (op) {
        X87_TWO(add, "fadd %%st(1), %%st")
        X87_TWO(mul, "fmul %%st(1), %%st")
        X87_TWO(com, "fcom %%st(1)")
        X87_TWO(comp, "fcom %%st(1)")
        X87_TWO(sub, "fsub %%st(1), %%st")
        X87_TWO(subr, "fsubr %%st(1), %%st")
        X87_TWO(div, "fdiv %%st(1), %%st")
        X87_TWO(divr, "fdivr %%st(1), %%st")
        X87_TWO(ucom, "fucom %%st(1)")
        X87_GROUP(f32, "", "s")
        X87_GROUP(f64, "", "l")
        X87_GROUP(i16, "i", "s")
        X87_GROUP(i32, "i", "l")
    default: break;
    }
}

static void run_function(X87Op op, Frame& f) {
    switch (op) {
        X87_ONE(f2xm1, "f2xm1")
        X87_ONE(sqrt, "fsqrt")
        X87_ONE(rndint, "frndint")
        X87_ONE(sin, "fsin")
        X87_ONE(cos, "fcos")
        X87_ONE(tst, "ftst")
        X87_ONE(xam, "fxam")
        X87_JOIN(yl2x, "fyl2x")
        X87_JOIN(patan, "fpatan")
        X87_TWO(prem1, "fprem1")
        X87_TWO(prem, "fprem")
        X87_JOIN(yl2xp1, "fyl2xp1")
        X87_TWO(scale, "fscale")
        X87_PUSH(ptan, "fptan")
        X87_PUSH(xtract, "fxtract")
        X87_PUSH(sincos, "fsincos")
        X87_NONE(ld1, "fld1")
        X87_NONE(ldl2t, "fldl2t")
        X87_NONE(ldl2e, "fldl2e")
        X87_NONE(ldpi, "fldpi")
        X87_NONE(ldlg2, "fldlg2")
        X87_NONE(ldln2, "fldln2")
        X87_NONE(ldz, "fldz")
    default: break;
    }
}

static void run_transfer(X87Op op, Frame& f) {
    switch (op) {
        X87_NONE(ld_f32, "flds %[memory]")
        X87_NONE(ld_f64, "fldl %[memory]")
        X87_NONE(ld_i16, "filds %[memory]")
        X87_NONE(ld_i32, "fildl %[memory]")
        X87_NONE(ld_i64, "fildll %[memory]")
        X87_NONE(ld_bcd, "fbld %[memory]")
        X87_MEMORY(st_f32, "fsts")
        X87_MEMORY(st_f64, "fstl")
        X87_MEMORY(st_i16, "fists")
        X87_MEMORY(st_i32, "fistl")
        X87_POPPING(st_i64, "fistpll")
        X87_POPPING(st_bcd, "fbstp")
        X87_POPPING(stt_i16, "fisttps")
        X87_POPPING(stt_i32, "fisttpl")
        X87_POPPING(stt_i64, "fisttpll")
    default: break;
    }
}

void run_x87(X87Op op, X87Operation& o) {
    bool trap = (o.control & all_masked) != all_masked;
    std::uint16_t host;
    asm volatile("fnstsw %0" : "=a"(host));
    // Flags left in the host's status word do no harm when the guest has them set too.
    if ((host & sticky) && (trap || (host & sticky & ~o.status))) asm volatile("fnclex");
    Frame f{.o = o, .trap = trap};
    if (op <= X87Op::ucom)
        run_arithmetic(op, f);
    else if (op <= X87Op::ldz)
        run_function(op, f);
    else
        run_transfer(op, f);
}

} // namespace vmm::tcg::x86
