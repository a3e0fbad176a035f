// X87Unit: one x87 instruction in progress: stack and tag rules, flags, what an unmasked exception suppresses.
#pragma once
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/fpu_image.h"
#include "vmm/tcg/guest/x86/x87_host.h"

#include <cstdint>
#include <optional>

namespace vmm::tcg::x86 {

// Waiting instructions: raises #MF when an unmasked exception is pending and returns false; with CR0.NE clear asserts
// FERR# instead and goes on, as with IGNNE# asserted.
bool x87_check_pending(X86Context& c);
// FNINIT.
void x87_reset(X86Context& c);

class X87Unit {
public:
    static constexpr X87::Register indefinite{.mantissa = 0xc000000000000000, .sign_exponent = 0xffff};

    // `a`: x87_arg. Sets the instruction pointer.
    X87Unit(X86Context& c, std::uint64_t a);
    // Sets ES (and the opcode register) if an unmasked exception is pending now.
    ~X87Unit();
    X87Unit(X87Unit const&) = delete;
    X87Unit& operator=(X87Unit const&) = delete;

    bool empty(unsigned i) const { return is_empty(x_, i); }
    X87::Register read(unsigned i) const { return st(x_, i); }
    void write(unsigned i, X87::Register r) {
        st(x_, i) = r;
        x_.tags |= std::uint8_t(1 << physical(x_, i));
    }
    void free(unsigned i) { x_.tags &= std::uint8_t(~(1 << physical(x_, i))); }
    void pop(unsigned n) {
        for (; n; n--) {
            free(0);
            set_top(x_, top(x_) + 1);
        }
    }
    void move_top(int delta) {
        set_top(x_, top(x_) + unsigned(delta));
        clear_c1();
    }
    void clear_c1() { x_.fsw &= std::uint16_t(~fsw::c1); }
    void clear_c2() { x_.fsw &= std::uint16_t(~fsw::c2); }
    void set_conditions(std::uint16_t bits) {
        x_.fsw = std::uint16_t((x_.fsw & ~fsw::conditions) | (bits & fsw::conditions));
    }

    // Stack faults. True: #IS is masked, the masked response follows.
    bool underflow() { return stack_fault(0); }
    bool overflow() { return stack_fault(fsw::c1); }
    // After an operation: no unmasked exception forbade the result.
    bool completed() const { return completed_; }

    void set_data_pointer(std::uint64_t offset);
    void set_memory(std::uint64_t value);
    std::uint8_t* memory() { return o_.memory; }

    // ST(dst) = ST(dst) op ST(src), then pops.
    void arithmetic(X87Op op, unsigned dst, unsigned src, unsigned pops);
    // ST(0) = ST(0) op memory; the compares among them set the condition codes and may pop.
    void arithmetic_memory(X87Op op);
    void compare(X87Op op, unsigned i);
    std::uint16_t run_only(X87Op op, unsigned i); // the condition codes, not written to the status word
    void test();
    void examine();
    void unary(X87Op op);
    void unary_push(X87Op op);
    void binary_pop(X87Op op); // ST(1) = f(ST(0), ST(1)), pop
    void remainder(X87Op op);
    void scale();
    void load(X87Op op); // pushes a constant or memory()
    void push_copy(unsigned i);
    void push_raw(X87::Register r);
    // Converts ST(0) into memory(). False: nothing is to be stored.
    bool convert(X87Op op);
    // Undoes the effects on the status word: the store faulted.
    void abandon() {
        x_.fsw = entry_fsw_;
        abandoned_ = true;
    }

private:
    std::uint16_t selector(unsigned segment) const; // as FCS and FDS hold it
    void put_data_pointer();
    bool stack_fault(std::uint16_t c1);
    // fresh_flags: o_.status then has only what this operation raised (slower).
    void run(X87Op op, bool fresh_flags = false);
    void take_c1() { x_.fsw = std::uint16_t((x_.fsw & ~fsw::c1) | (o_.status & fsw::c1)); }
    void push(X87::Register r) {
        set_top(x_, top(x_) - 1);
        write(0, r);
    }

    X86Context& c_;
    X87& x_;
    X87Operation o_;
    std::uint64_t const a_;
    std::uint16_t const entry_fsw_;
    std::optional<std::uint64_t> data_pointer_;
    bool completed_ = true, abandoned_ = false;
};

} // namespace vmm::tcg::x86
