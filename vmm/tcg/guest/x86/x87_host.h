// One x87 operation, exactly: 80-bit arithmetic with the control word's rounding, precision and masks. The only place
// that knows how; today it runs on the host's own x87 (x86-64 hosts), a software implementation can take its place.
#pragma once
#include "vmm/cpu/x86/state.h"

#include <cstdint>

namespace vmm::tcg::x86 {

using vmm::x86::X87;

// The order of each group of eight is the ModRM reg field's.
enum class X87Op : std::uint8_t {
    // result = x op y
    add,
    mul,
    com,
    comp,
    sub,
    subr,
    div,
    divr,
    // y is `memory`: a float, a double, a 16-bit, a 32-bit integer
    add_f32,
    mul_f32,
    com_f32,
    comp_f32,
    sub_f32,
    subr_f32,
    div_f32,
    divr_f32,
    add_f64,
    mul_f64,
    com_f64,
    comp_f64,
    sub_f64,
    subr_f64,
    div_f64,
    divr_f64,
    add_i16,
    mul_i16,
    com_i16,
    comp_i16,
    sub_i16,
    subr_i16,
    div_i16,
    divr_i16,
    add_i32,
    mul_i32,
    com_i32,
    comp_i32,
    sub_i32,
    subr_i32,
    div_i32,
    divr_i32,
    ucom,
    // one operand, one result
    f2xm1,
    sqrt,
    rndint,
    sin,
    cos,
    tst,
    xam,
    // x and y, one result
    yl2x,
    patan,
    prem1,
    prem,
    yl2xp1,
    scale,
    // result, and second = what is pushed above it
    ptan,
    xtract,
    sincos,
    // constants
    ld1,
    ldl2t,
    ldl2e,
    ldpi,
    ldlg2,
    ldln2,
    ldz,
    // result = memory
    ld_f32,
    ld_f64,
    ld_i16,
    ld_i32,
    ld_i64,
    ld_bcd,
    // memory = x
    st_f32,
    st_f64,
    st_i16,
    st_i32,
    st_i64,
    st_bcd,
    stt_i16,
    stt_i32,
    stt_i64,
};

struct X87Operation {
    X87::Register x, y, result, second;
    alignas(16) std::uint8_t memory[16] = {};
    // The guest's control word and (flags only) status word; after the operation: flags that it raised, condition
    // codes.
    std::uint16_t control = 0, status = 0;
};
// With all exceptions masked, flags already set in `status` may be reported again; with any unmasked only new ones are,
// and where an unmasked exception forbids a result, `result` is x and `memory` unchanged.
void run_x87(X87Op op, X87Operation& o);

} // namespace vmm::tcg::x86
