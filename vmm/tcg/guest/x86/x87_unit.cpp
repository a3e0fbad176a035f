#include "vmm/tcg/guest/x86/x87_unit.h"

#include "vmm/tcg/guest/x86/helpers_fp.h"

#include <cstring>

namespace vmm::tcg::x86 {

// Exceptions found before a result exists.
static constexpr std::uint16_t forbids_result = fsw::ie | fsw::de | fsw::ze;

bool x87_check_pending(X86Context& c) {
    if (!(c.state.x87.fsw & fsw::es)) return true;
    if (c.state.cr0 & cr0::ne) {
        c.raise(vec::mf);
        return false;
    }
    c.bus->set_ferr(true);
    return true;
}

void x87_reset(X86Context& c) {
    X87& x = c.state.x87;
    if (x.fsw & fsw::es && !(c.state.cr0 & cr0::ne)) c.bus->set_ferr(false);
    x.fcw = 0x37f;
    x.fsw = 0;
    x.tags = 0;
    x.fop = 0;
    x.fip = x.fdp = 0;
    x.fcs = x.fds = 0;
}

X87Unit::X87Unit(X86Context& c, std::uint64_t a) : c_(c), x_(c.state.x87), a_(a), entry_fsw_(c.state.x87.fsw) {}

std::uint16_t X87Unit::selector(unsigned segment) const {
    return c_.model->has(Feature::zero_fcs_fds) ? 0 : c_.state.seg[segment].selector;
}

X87Unit::~X87Unit() {
    update_summary(x_);
    if (abandoned_) return;
    std::uint64_t const linear = c_.engine.pc_base + std::uint64_t(std::int64_t(a_) >> x87_arg::offset_shift);
    x_.fip = c_.mode().is64() ? linear : std::uint32_t(linear - c_.state.seg[cs].base);
    x_.fcs = selector(cs);
    if (data_pointer_ && !c_.model->has(Feature::fdp_excptn_only)) put_data_pointer();
    if (!(x_.fsw & fsw::es)) return;
    x_.fop = a_ & 0x7ff;
    if (data_pointer_ && c_.model->has(Feature::fdp_excptn_only)) put_data_pointer();
}

void X87Unit::set_data_pointer(std::uint64_t offset) { data_pointer_ = offset; }
void X87Unit::put_data_pointer() {
    x_.fdp = *data_pointer_;
    x_.fds = selector(a_ >> x87_arg::segment_shift & 7);
}
void X87Unit::set_memory(std::uint64_t value) { std::memcpy(o_.memory, &value, sizeof value); }

bool X87Unit::stack_fault(std::uint16_t c1) {
    x_.fsw = std::uint16_t((x_.fsw & ~fsw::c1) | fsw::ie | fsw::sf | c1);
    completed_ = x_.fcw & fsw::ie;
    return completed_;
}

void X87Unit::run(X87Op op, bool fresh_flags) {
    o_.control = x_.fcw;
    o_.status = fresh_flags ? 0 : x_.fsw & fsw::exceptions;
    run_x87(op, o_);
    std::uint16_t raised = o_.status & fsw::exceptions;
    x_.fsw |= raised;
    completed_ = !(raised & ~x_.fcw & forbids_result);
}

void X87Unit::arithmetic(X87Op op, unsigned dst, unsigned src, unsigned pops) {
    if (empty(dst) || empty(src)) {
        if (!underflow()) return;
        write(dst, indefinite);
        pop(pops);
        return;
    }
    o_.x = read(dst);
    o_.y = read(src);
    run(op);
    take_c1();
    if (!completed_) return;
    write(dst, o_.result);
    pop(pops);
}

void X87Unit::arithmetic_memory(X87Op op) {
    unsigned reg = unsigned(op) & 7;
    bool compares = reg == 2 || reg == 3;
    unsigned pops = reg == 3 ? 1 : 0;
    if (empty(0)) {
        bool masked = underflow();
        if (compares) set_conditions(fsw::c0 | fsw::c2 | fsw::c3);
        if (!masked) return;
        if (!compares) write(0, indefinite);
        pop(pops);
        return;
    }
    o_.x = read(0);
    run(op);
    // The condition codes are set even where an unmasked exception keeps the stack as it is.
    if (compares) set_conditions(o_.status & std::uint16_t(~fsw::c1));
    if (!compares) take_c1();
    if (!completed_) return;
    if (!compares) write(0, o_.result);
    pop(pops);
}

std::uint16_t X87Unit::run_only(X87Op op, unsigned i) {
    o_.x = read(0);
    o_.y = read(i);
    run(op);
    return o_.status;
}

void X87Unit::compare(X87Op op, unsigned i) {
    std::uint16_t conditions = run_only(op, i);
    set_conditions(conditions & std::uint16_t(~fsw::c1));
}

void X87Unit::test() {
    if (empty(0)) {
        underflow();
        return set_conditions(fsw::c0 | fsw::c2 | fsw::c3);
    }
    o_.x = read(0);
    run(X87Op::tst);
    set_conditions(o_.status & std::uint16_t(~fsw::c1));
}

void X87Unit::examine() {
    o_.x = read(0);
    std::uint16_t sign = o_.x.sign_exponent & 0x8000 ? fsw::c1 : 0;
    if (empty(0)) return set_conditions(fsw::c3 | fsw::c0 | sign);
    run(X87Op::xam);
    set_conditions(o_.status);
}

void X87Unit::unary(X87Op op) {
    if (empty(0)) {
        if (op == X87Op::sin || op == X87Op::cos) clear_c2();
        if (underflow()) write(0, indefinite);
        return;
    }
    o_.x = read(0);
    run(op);
    take_c1();
    if (op == X87Op::sin || op == X87Op::cos) x_.fsw = std::uint16_t((x_.fsw & ~fsw::c2) | (o_.status & fsw::c2));
    if (completed_) write(0, o_.result);
}

void X87Unit::unary_push(X87Op op) {
    if (op != X87Op::xtract) clear_c2();
    if (empty(0)) {
        if (!underflow()) return;
        write(0, indefinite);
        push(indefinite);
        return;
    }
    if (!empty(7)) {
        if (!overflow()) return;
        write(0, indefinite);
        push(indefinite);
        return;
    }
    o_.x = read(0);
    run(op);
    take_c1();
    if (op != X87Op::xtract) x_.fsw = std::uint16_t((x_.fsw & ~fsw::c2) | (o_.status & fsw::c2));
    if (!completed_ || (op != X87Op::xtract && o_.status & fsw::c2)) return; // out of range: unchanged
    write(0, o_.second); // the pushed value came off the host's stack first
    push(o_.result);
}

void X87Unit::binary_pop(X87Op op) {
    if (empty(0) || empty(1)) {
        if (!underflow()) return;
        write(1, indefinite);
        pop(1);
        return;
    }
    o_.x = read(0);
    o_.y = read(1);
    run(op);
    take_c1();
    if (!completed_) return;
    write(1, o_.result);
    pop(1);
}

void X87Unit::remainder(X87Op op) {
    if (empty(0) || empty(1)) {
        clear_c2();
        if (underflow()) write(0, indefinite);
        return;
    }
    o_.x = read(0);
    o_.y = read(1);
    run(op, true);
    bool nan = (o_.result.sign_exponent & 0x7fff) == 0x7fff && o_.result.mantissa << 1;
    if (o_.status & fsw::ie || nan || !completed_) { // no quotient: C0 and C3 stay
        clear_c1();
        clear_c2();
    } else {
        set_conditions(o_.status);
    }
    if (completed_) write(0, o_.result);
}

void X87Unit::scale() {
    if (empty(0) || empty(1)) {
        if (underflow()) write(0, indefinite);
        return;
    }
    o_.x = read(0);
    o_.y = read(1);
    run(X87Op::scale);
    take_c1();
    if (completed_) write(0, o_.result);
}

void X87Unit::load(X87Op op) {
    if (!empty(7)) {
        if (overflow()) push(indefinite);
        return;
    }
    run(op);
    // A denormal is loaded even when its exception is unmasked.
    completed_ = !(o_.status & ~x_.fcw & fsw::ie);
    clear_c1();
    if (completed_) push(o_.result);
}

void X87Unit::push_raw(X87::Register r) {
    if (!empty(7)) {
        if (overflow()) push(indefinite);
        return;
    }
    clear_c1();
    push(r);
}

void X87Unit::push_copy(unsigned i) {
    if (!empty(i)) return push_raw(read(i));
    if (underflow()) push(indefinite);
}

bool X87Unit::convert(X87Op op) {
    if (empty(0)) {
        if (!underflow()) return false;
        // The masked response stores the destination format's indefinite: what a NaN converts to, flags aside.
        o_.x = indefinite;
        o_.control = 0x37f;
        o_.status = fsw::exceptions;
        run_x87(op, o_);
        return true;
    }
    o_.x = read(0);
    run(op);
    take_c1();
    // Overflow and underflow of a store to memory forbid it too.
    completed_ = !(o_.status & ~x_.fcw & (forbids_result | fsw::oe | fsw::ue));
    return completed_;
}

} // namespace vmm::tcg::x86
