// A program interrupted at random points moves between engines and ends as if it had not; KVM, stepped, agrees with the
// interpreter.
#include "real_machine.h"

#include <random>
#include <thread>

namespace vmm {

namespace {

constexpr std::uint64_t iterations = 3000, handler = code_base + 256;

// Hashes with integer, string and SSE work; a counter rises with each interrupt. rbx: hash. Ends in HLT with IF=0.
struct Work : Xbyak::CodeGenerator {
    // KVM's single step stops after the instruction that follows an OUT: `ports` = false for stepping.
    explicit Work(bool ports = true) {
        using namespace Xbyak::util;
        sti();
        mov(ecx, std::uint32_t(iterations));
        mov(rbx, 0x123456789abcdef1);
        L("again");
        mov(rax, rbx), shl(rax, 13), xor_(rbx, rax);
        mov(rax, rbx), shr(rax, 7), xor_(rbx, rax);
        mov(rax, rbx), shl(rax, 17), xor_(rbx, rax);
        push(rbx), pop(r9);
        mul(rbx), add(r10, rdx), adc(r11, rax);
        // XMM0 carries the last round's value; few SSE instructions can be emulated by a KVM without hardware beneath.
        movups(ptr[r15 + data_base + 192], xmm0);
        mov(rax, ptr[r15 + data_base + 192]), add(rax, rbx), mov(ptr[r15 + data_base + 192], rax);
        movups(xmm0, ptr[r15 + data_base + 192]);
        mov(ptr[r15 + data_base + 64], rbx);
        cld(), lea(rsi, ptr[r15 + data_base + 64]), lea(rdi, ptr[r15 + data_base + 128]);
        mov(r12, rcx), mov(ecx, 8), rep(), movsb(), mov(rcx, r12);
        xor_(rbx, ptr[r15 + data_base + 128]), xor_(rbx, r9);
        if (ports) mov(al, cl), out_(0x80, al);
        dec(ecx);
        jnz("again", T_NEAR);
        movups(ptr[r15 + data_base + 192], xmm0);
        xor_(rbx, ptr[r15 + data_base + 192]), xor_(rbx, r10), xor_(rbx, r11);
        cli();
        hlt();
        while (getSize() < handler - code_base) nop();
        push(rax);
        inc(qword[r15 + data_base]);
        mov(al, 1), out_(0x20, al);
        pop(rax);
        db(0x48), db(0xcf); // IRETQ
    }
};

struct Mover {
    RealMachine& m;
    std::mt19937& random;
    unsigned moves = 0, raised = 0;

    // Lets a vCPU run some way; true when the program has ended.
    bool run_some(Vcpu& vcpu, bool is_kvm) {
        unsigned stop_after = 1 + random() % 40, ports = 0;
        m.bus.on_port_write = [&](auto...) {
            if (++ports == stop_after) vcpu.request_exit();
            if (ports % 7 == 0) raise(vcpu);
        };
        unsigned steps = is_kvm && random() % 4 == 0 ? 1 + random() % 60 : 0;
        if (steps) {
            EXPECT_TRUE(m.kvm->set_guest_debug({.single_step = true}));
        }
        ExitReason reason = ExitReason::requested;
        if (is_kvm && steps) {
            for (unsigned n = 0; n < steps && (n == 0 || reason == ExitReason::debug); ++n) reason = vcpu.run(0);
            EXPECT_TRUE(m.kvm->set_guest_debug({}));
        } else if (is_kvm && random() % 3 == 0) {
            std::atomic<bool> go{false};
            unsigned spin = random() % 20000;
            std::thread other([&] {
                while (!go) {
                }
                for (unsigned n = 0; n < spin; ++n) __builtin_ia32_pause();
                vcpu.request_exit();
            });
            go = true;
            reason = vcpu.run(0);
            other.join();
        } else {
            reason = vcpu.run(is_kvm ? 0 : 1 + random() % 1500);
        }
        m.bus.on_port_write = {};
        EXPECT_NE(reason, ExitReason::internal_error) << vcpu.error_text();
        EXPECT_NE(reason, ExitReason::shutdown);
        return reason == ExitReason::halted || reason == ExitReason::internal_error || reason == ExitReason::shutdown;
    }
    void raise(Vcpu& vcpu) {
        if (m.bus.pending) return;
        ++raised;
        m.bus.pending = true;
        vcpu.interrupt_changed();
    }
};

std::uint64_t expected_hash() {
    RealMachine m;
    m.make_interp();
    m.load(Work());
    m.gate(0x40, handler);
    m.interp->set_state(m.flat64());
    EXPECT_EQ(m.interp->run(0), ExitReason::halted);
    return m.interp->state().gpr[x86::rbx];
}

} // namespace

TEST(EngineMove, a_program_moved_hundreds_of_times_between_kvm_and_the_interpreter_ends_the_same) {
    std::uint64_t expected = expected_hash();
    std::mt19937 random(42);
    unsigned moves = 0;
    for (unsigned round = 0; round < 8; ++round) {
        RealMachine m;
        if (std::string why = m.make_kvm(); !why.empty()) GTEST_SKIP() << why;
        m.make_interp();
        m.load(Work());
        m.gate(0x40, handler);
        m.kvm->set_state(m.flat64());
        Mover mover{m, random};
        bool on_kvm = true;
        for (;;) {
            Vcpu& now = on_kvm ? static_cast<Vcpu&>(*m.kvm) : *m.interp;
            if (mover.run_some(now, on_kvm)) break;
            Vcpu& then = on_kvm ? static_cast<Vcpu&>(*m.interp) : *m.kvm;
            then.set_state(now.state());
            on_kvm = !on_kvm;
            ++moves;
        }
        x86::State s = on_kvm ? m.kvm->state() : m.interp->state();
        EXPECT_EQ(s.gpr[x86::rbx], expected) << "round " << round;
        unsigned left = m.bus.pending ? 1 : 0;
        EXPECT_EQ(m.get<std::uint64_t>(data_base), mover.raised - left) << "an interrupt was lost or came twice";
        EXPECT_EQ(m.bus.acknowledged, mover.raised - left);
        if (HasFailure()) return;
    }
    EXPECT_GT(moves, 300u);
    RecordProperty("moves", int(moves));
}

TEST(EngineMove, kvm_stepped_agrees_with_the_interpreter_instruction_by_instruction) {
    RealMachine m, n;
    if (std::string why = m.make_kvm(); !why.empty()) GTEST_SKIP() << why;
    m.load(Work(false));
    n.model = m.model;
    n.machine = nullptr;
    n.make_interp();
    n.load(Work(false));
    m.kvm->set_state(m.flat64());
    n.interp->set_state(n.flat64());
    ASSERT_TRUE(m.kvm->set_guest_debug({.single_step = true}));
    // The interpreter stops at the ends of blocks; KVM, stepped, must come by with the same registers soon.
    constexpr std::uint64_t compared = x86::flag::cf | x86::flag::if_ | x86::flag::df;
    unsigned steps = 0;
    for (unsigned block = 0; block < 150; ++block) {
        std::uint64_t from = n.interp->state().rip;
        n.interp->run(1);
        x86::State b = n.interp->state(), a;
        for (unsigned tries = 0; tries < 300; ++tries, ++steps) {
            ASSERT_EQ(m.kvm->run(0), ExitReason::debug) << m.kvm->error_text();
            a = m.kvm->state();
            if (a.rip == b.rip && a.gpr == b.gpr) break;
        }
        ASSERT_EQ(a.rip, b.rip) << "block " << block << " from " << std::hex << from;
        ASSERT_EQ(a.gpr, b.gpr) << "block " << block << " from " << std::hex << from;
        ASSERT_EQ(a.rflags & compared, b.rflags & compared) << "block " << block << " from " << std::hex << from;
        ASSERT_EQ(a.ymm[0], b.ymm[0]);
    }
    EXPECT_GT(steps, 2000u);
}

} // namespace vmm
