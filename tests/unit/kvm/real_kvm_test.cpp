// Guest code on the host's KVM. Skipped where there is none.
#include "real_machine.h"
#include "vmm/kvm/kvm_irq.h"

#include <sys/eventfd.h>

#include <chrono>
#include <random>
#include <thread>

namespace vmm {

namespace {

struct RealKvm : testing::Test {
    RealMachine m;
    void SetUp() override {
        if (std::string why = m.make_kvm(); !why.empty()) GTEST_SKIP() << why;
    }
    void start(Xbyak::CodeGenerator const& code) {
        m.load(code);
        m.kvm->set_state(m.flat64());
    }
    // Runs until the program halts.
    void run_to_halt() {
        for (;;) {
            ExitReason reason = m.kvm->run(0);
            if (reason == ExitReason::halted) return;
            ASSERT_EQ(reason, ExitReason::requested) << m.kvm->error_text();
        }
    }
};

std::uint64_t next(std::uint64_t& x) { return x ^= x << 13, x ^= x >> 7, x ^= x << 17; }

} // namespace

TEST_F(RealKvm, state_comes_back_as_it_was_set) {
    x86::State s = m.flat64();
    std::mt19937_64 random(1);
    for (auto& r : s.gpr) r = random();
    for (unsigned i = 0; i < 16; ++i)
        for (auto& lane : s.ymm[i]) lane = random();
    for (auto& r : s.x87.r) r.mantissa = random() | 1ull << 63, r.sign_exponent = std::uint16_t(random() % 0x7ffe + 1);
    s.x87.tags = 0xff, s.x87.fsw = 3 << 11;
    s.star = 0x23001000000000, s.lstar = 0xffff800000001234, s.kernel_gs_base = 0x1234, s.sysenter_eip = 0x4567;
    s.dr[0] = 0x1000, s.dr6 = 0xffff0ff0, s.dr7 = 0x400, s.nmi_blocked = true, s.interrupt_shadow = true;
    m.kvm->set_state(s);
    ASSERT_EQ(m.kvm->error_text(), "");
    x86::State back = m.kvm->state();
    EXPECT_EQ(back.gpr, s.gpr);
    EXPECT_EQ(back.rip, s.rip);
    EXPECT_EQ(back.cr0, s.cr0);
    EXPECT_EQ(back.cr4, s.cr4);
    EXPECT_EQ(back.efer, s.efer);
    EXPECT_EQ(back.lstar, s.lstar);
    EXPECT_EQ(back.star, s.star);
    EXPECT_EQ(back.kernel_gs_base, s.kernel_gs_base);
    EXPECT_EQ(back.sysenter_eip, s.sysenter_eip);
    EXPECT_EQ(back.dr, s.dr);
    EXPECT_EQ(back.nmi_blocked, s.nmi_blocked);
    EXPECT_EQ(back.interrupt_shadow, s.interrupt_shadow);
    for (unsigned i = 0; i < 16; ++i) EXPECT_EQ(back.ymm[i][0], s.ymm[i][0]) << i;
    for (unsigned i = 0; i < 8; ++i) {
        EXPECT_EQ(back.x87.r[i].mantissa, s.x87.r[i].mantissa) << i;
        EXPECT_EQ(back.x87.r[i].sign_exponent, s.x87.r[i].sign_exponent) << i;
    }
    for (unsigned i = 0; i < x86::tr; ++i) EXPECT_EQ(back.seg[i].attributes, s.seg[i].attributes) << i;
}

// What KVM keeps for a guest that knows it, and the machine check banks with an event of theirs under way.
TEST_F(RealKvm, paravirtual_registers_and_machine_checks_come_back_as_they_were_set) {
    x86::State s = m.flat64();
    s.kvm_system_time = data_base | 1, s.kvm_wall_clock = data_base + 0x100;
    s.kvm_steal_time = data_base + 0x201, s.kvm_poll_control = 0; // steal time: bit 0 enables
    s.mcg_status = 5, s.mcg_ctl = ~0ull;
    for (unsigned bank = 0; bank < 10; ++bank) {
        s.mc_banks[4 * bank] = ~0ull;
        s.mc_banks[4 * bank + 1] = 0xb200000000000000 | bank;
        s.mc_banks[4 * bank + 2] = 0x1000 * bank;
        s.mc_banks[4 * bank + 3] = bank;
    }
    s.event_pending = true, s.event_vector = 18;
    m.kvm->set_state(s);
    ASSERT_EQ(m.kvm->error_text(), "");
    x86::State back = m.kvm->state();
    EXPECT_EQ(back.kvm_system_time, s.kvm_system_time);
    EXPECT_EQ(back.kvm_wall_clock, s.kvm_wall_clock);
    EXPECT_EQ(back.kvm_poll_control, s.kvm_poll_control);
    EXPECT_EQ(back.mcg_status, s.mcg_status);
    EXPECT_EQ(back.mcg_ctl, s.mcg_ctl);
    EXPECT_EQ(back.mc_banks, s.mc_banks);
    EXPECT_TRUE(back.event_pending);
    EXPECT_EQ(back.event_vector, 18);
}

TEST_F(RealKvm, a_million_random_port_and_mmio_accesses_carry_their_values) {
    constexpr std::uint64_t rounds = 250'000, device = 0x20000000;
    struct Program : Xbyak::CodeGenerator {
        explicit Program(std::uint64_t n) {
            mov(rcx, n);
            mov(rbx, 0x9e3779b97f4a7c15);
            xor_(r8, r8);
            L("again");
            auto step = [&] { // rbx = xorshift64(rbx)
                mov(rax, rbx), shl(rax, 13), xor_(rbx, rax);
                mov(rax, rbx), shr(rax, 7), xor_(rbx, rax);
                mov(rax, rbx), shl(rax, 17), xor_(rbx, rax);
            };
            step();
            mov(rdx, rbx), shr(rdx, 48), and_(edx, 0xfff0);
            mov(eax, ebx), out_(dx, eax);
            in_(eax, dx);
            add(r8, rax);
            step();
            mov(rdi, rbx), shr(rdi, 50), and_(edi, 0xff8), add(rdi, std::uint32_t(device));
            mov(ptr[rdi], rbx);
            mov(eax, ptr[rdi + 4]);
            add(r8, rax);
            dec(rcx);
            jnz("again");
            hlt();
        }
    } code(rounds);
    struct Device final : IoHandler {
        std::uint64_t read(std::uint64_t offset, unsigned size) override { return size == 4 ? offset * 0x10001 : 0; }
        void write(std::uint64_t, unsigned size, std::uint64_t value) override { sum += value * size; }
        std::uint64_t sum = 0;
    } io;
    m.memory.map({.name = "device", .range = AddressRange::of(device, 0x1000), .backing = Backing::of_io(io)});
    m.bus.on_port_read = [](std::uint16_t port, unsigned) { return port * 3u; };
    std::uint64_t x = 0x9e3779b97f4a7c15, sum = 0, stored = 0;
    std::vector<test::FakeCpuBus::Access> ports;
    for (std::uint64_t n = 0; n < rounds; ++n) {
        next(x);
        std::uint32_t port = x >> 48 & 0xfff0;
        ports.push_back({port, 4, std::uint32_t(x)});
        sum += port * 3u;
        next(x);
        std::uint64_t offset = x >> 50 & 0xff8;
        stored += x * 8;
        sum += (offset + 4) * 0x10001;
    }
    start(code);
    run_to_halt();
    EXPECT_EQ(m.bus.port_writes, ports);
    EXPECT_EQ(io.sum, stored);
    EXPECT_EQ(m.kvm->state().gpr[x86::r8], sum);
}

TEST_F(RealKvm, a_rom_is_read_and_writes_to_it_come_to_the_bus) {
    auto rom = RamBlock::create("rom", page_size).value();
    std::memset(rom->host(), 0x5a, page_size);
    auto id = m.memory.map({.name = "rom",
                            .range = AddressRange::of(0xa0000, page_size),
                            .backing = Backing::of_ram(*rom),
                            .priority = 1,
                            .use = MapFor::reads});
    struct Program : Xbyak::CodeGenerator {
        Program() {
            mov(eax, ptr[r15 + 0xa0000]);
            mov(dword[r15 + 0xa0004], 0x11223344);
            mov(ebx, ptr[r15 + 0xa0004]);
            hlt();
        }
    } code;
    start(code);
    run_to_halt();
    x86::State s = m.kvm->state();
    EXPECT_EQ(s.gpr[x86::rax], 0x5a5a5a5au);
    EXPECT_EQ(s.gpr[x86::rbx], 0x5a5a5a5au);
    ASSERT_EQ(m.bus.mmio_writes.size(), 1u);
    EXPECT_EQ(m.get<std::uint32_t>(0xa0004), 0x11223344u)
        << "the write falls through to the RAM beneath, as PAM has it";
    m.memory.unmap(id);
    m.kvm->set_state(m.flat64());
    run_to_halt();
    EXPECT_EQ(m.kvm->state().gpr[x86::rbx], 0x11223344u);
}

TEST_F(RealKvm, interrupts_arrive_while_the_guest_loops_and_while_it_halts) {
    struct Program : Xbyak::CodeGenerator {
        Program() {
            sti();
            L("loop");
            inc(rbx);
            cmp(qword[r15 + data_base], 3);
            jb("loop");
            hlt();
            jmp("end");
            nop();
            align(64);
            L("handler"); // at code_base + 64
            inc(qword[r15 + data_base]);
            mov(al, 0x20), out_(0x20, al);
            db(0x48), db(0xcf); // IRETQ
            L("end");
            hlt();
        }
    } code;
    m.gate(0x40, code_base + 64);
    start(code);
    m.bus.on_port_write = [&](auto...) {
        if (m.get<std::uint64_t>(data_base) < 3) m.bus.pending = true;
    };
    std::thread other([&] {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        m.bus.pending = true;
        m.kvm->interrupt_changed();
    });
    EXPECT_EQ(m.kvm->run(0), ExitReason::halted);
    other.join();
    EXPECT_EQ(m.get<std::uint64_t>(data_base), 3u);
    EXPECT_FALSE(m.kvm->has_work());
    m.bus.pending = true;
    EXPECT_TRUE(m.kvm->has_work());
    EXPECT_EQ(m.kvm->run(0), ExitReason::halted);
    EXPECT_EQ(m.get<std::uint64_t>(data_base), 4u);
    EXPECT_EQ(m.bus.acknowledged, 4u);
}

TEST_F(RealKvm, an_endless_loop_is_left_on_request_every_time) {
    struct Program : Xbyak::CodeGenerator {
        Program() { L("x"), inc(rax), jmp("x"); }
    } code;
    start(code);
    for (unsigned n = 0; n < 100; ++n) {
        std::thread other([&] { m.kvm->request_exit(); });
        ASSERT_EQ(m.kvm->run(0), ExitReason::requested);
        other.join();
    }
}

TEST_F(RealKvm, a_triple_fault_is_a_shutdown) {
    struct Program : Xbyak::CodeGenerator {
        Program() { ud2(); }
    } code;
    m.load(code);
    x86::State s = m.flat64();
    s.idtr = {0, 0};
    m.kvm->set_state(s);
    EXPECT_EQ(m.kvm->run(0), ExitReason::shutdown) << m.kvm->error_text();
}

TEST_F(RealKvm, single_steps_and_hardware_breakpoints_stop_where_they_should) {
    struct Program : Xbyak::CodeGenerator {
        Program() { inc(rax), inc(rax), inc(rax), inc(rax), hlt(); } // 3 bytes each
    } code;
    start(code);
    ASSERT_TRUE(m.kvm->set_guest_debug({.single_step = true}));
    for (unsigned n = 1; n <= 3; ++n) {
        ASSERT_EQ(m.kvm->run(0), ExitReason::debug) << m.kvm->error_text();
        EXPECT_EQ(m.kvm->state().rip, code_base + 3 * n);
    }
    m.kvm->set_state(m.flat64());
    ASSERT_TRUE(m.kvm->set_guest_debug({.hardware = {{.address = code_base + 6, .type = 0, .size = 1}}}));
    ASSERT_EQ(m.kvm->run(0), ExitReason::debug);
    EXPECT_EQ(m.kvm->state().rip, code_base + 6);
}

TEST_F(RealKvm, an_nmi_is_delivered) {
    struct Program : Xbyak::CodeGenerator {
        Program() { hlt(), hlt(), align(64), mov(qword[r15 + data_base], 7), db(0x48), db(0xcf); } // IRETQ
    } code;
    m.gate(2, code_base + 64);
    start(code);
    EXPECT_EQ(m.kvm->run(0), ExitReason::halted);
    m.kvm->signal(CpuSignal::nmi, 0);
    EXPECT_EQ(m.kvm->run(0), ExitReason::halted);
    EXPECT_EQ(m.get<std::uint64_t>(data_base), 7u);
}

TEST_F(RealKvm, the_bitmap_and_the_ring_tell_the_pages_a_guest_wrote) {
    struct Program : Xbyak::CodeGenerator {
        Program() { mov(byte[r15 + 0x200000], 1), mov(byte[r15 + 0x345678], 1), hlt(); }
    } code;
    for (unsigned ring : {0u, 1024u}) {
        RealMachine r;
        ASSERT_EQ(r.make_kvm({.dirty_ring_entries = ring}), "");
        r.load(code);
        r.ram->start_dirty_log();
        r.memory.notify_dirty_log_changed();
        r.kvm->set_state(r.flat64());
        EXPECT_EQ(r.kvm->run(0), ExitReason::halted) << r.kvm->error_text();
        EXPECT_FALSE(r.ram->page_dirty(0x200000));
        auto done = r.machine->sync_dirty_log();
        ASSERT_TRUE(done) << done.error().message();
        EXPECT_TRUE(r.ram->page_dirty(0x200000)) << "ring " << ring;
        EXPECT_TRUE(r.ram->page_dirty(0x345000));
        EXPECT_FALSE(r.ram->page_dirty(0x300000));
    }
}

TEST_F(RealKvm, an_ioeventfd_takes_a_port_write_without_an_exit) {
    struct Program : Xbyak::CodeGenerator {
        Program() { mov(dx, 0xc000), mov(ax, 5), out_(dx, ax), out_(dx, ax), hlt(); }
    } code;
    UniqueFd event(eventfd(0, EFD_NONBLOCK));
    kvm::KvmIrqs irqs(*m.machine);
    ASSERT_TRUE(irqs.attach_ioeventfd(event.get(),
                                      {.address = 0xc000, .size = 2, .port = true, .match_data = true, .data = 5}));
    start(code);
    run_to_halt();
    std::uint64_t count = 0;
    ASSERT_EQ(read(event.get(), &count, 8), 8);
    EXPECT_EQ(count, 2u);
    EXPECT_TRUE(m.bus.port_writes.empty());
    ASSERT_TRUE(irqs.detach_ioeventfd(event.get(),
                                      {.address = 0xc000, .size = 2, .port = true, .match_data = true, .data = 5}));
}

TEST_F(RealKvm, linear_addresses_are_translated_without_a_fault) {
    m.kvm->set_state(m.flat64());
    EXPECT_EQ(m.kvm->translate(0x123456), 0x123456u);
    EXPECT_EQ(m.kvm->translate(0x7fff'0000'0000), std::nullopt);
}

TEST_F(RealKvm, kernel_controllers_can_be_made) {
    for (kvm::KernelIrqchip chip : {kvm::KernelIrqchip::split, kvm::KernelIrqchip::on}) {
        RealMachine r;
        ASSERT_EQ(r.make_kvm({.irqchip = chip}), "");
        kvm::KvmIrqs irqs(*r.machine);
        if (chip == kvm::KernelIrqchip::on) {
            ASSERT_TRUE(irqs.set_pc_routes());
            EXPECT_TRUE(irqs.set_line(4, true));
        }
        EXPECT_TRUE(irqs.route_msi(24, {0xfee00000, 0x41}));
        UniqueFd event(eventfd(0, EFD_NONBLOCK));
        EXPECT_TRUE(irqs.attach_irqfd(event.get(), 24));
        EXPECT_TRUE(irqs.detach_irqfd(event.get(), 24));
    }
}

namespace {

// A program for kernel-irqchip=on: its handler counts at data_base and ends the interrupt; the program writes port 0x80
// once it has counted.
struct CountsInterrupts : Xbyak::CodeGenerator {
    static constexpr std::uint64_t handler = code_base + 256;
    explicit CountsInterrupts(std::uint32_t redirection_20 = 0) {
        using namespace Xbyak::util;
        mov(eax, 0xfee000f0), mov(dword[rax], 0x1ff);
        if (redirection_20) {
            mov(eax, 0xfec00000);
            mov(dword[rax], 0x39), mov(dword[rax + 0x10], 0);
            mov(dword[rax], 0x38), mov(dword[rax + 0x10], redirection_20);
        }
        sti();
        L("wait");
        mov(rcx, ptr[r15 + data_base]), test(rcx, rcx), jz("wait");
        cli(), out_(0x80, al);
        L("end"), jmp("end");
        while (getSize() < handler - code_base) nop();
        push(rax);
        inc(qword[r15 + data_base]);
        mov(eax, 0xfee000b0), mov(dword[rax], 0);
        pop(rax);
        db(0x48), db(0xcf); // IRETQ
    }
};

// Signals an eventfd again and again: the controllers take no interrupt before the program has set them up.
class Knocking {
public:
    explicit Knocking(int fd)
        : thread_([this, fd] {
              std::uint64_t one = 1;
              while (!done_) {
                  EXPECT_EQ(write(fd, &one, 8), 8);
                  std::this_thread::sleep_for(std::chrono::milliseconds(5));
              }
          }) {}
    ~Knocking() {
        done_ = true;
        thread_.join();
    }

private:
    std::atomic<bool> done_{false};
    std::thread thread_;
};

// Runs it until an interrupt has come; how often its handler ran.
std::uint64_t interrupts_counted(RealMachine& r, CountsInterrupts const& code, unsigned vector) {
    r.put(0x2000 + 8 * 3, std::uint64_t(0x4003)); // the fourth GiB, where the APICs are
    for (std::uint64_t n = 0; n < 512; ++n) r.put(0x4000 + 8 * n, (3 * GiB + (n << 21)) | 0x83);
    r.load(code);
    r.gate(vector, CountsInterrupts::handler);
    r.bus.on_port_write = [&](auto...) { r.kvm->request_exit(); };
    r.kvm->set_state(r.flat64());
    EXPECT_EQ(r.kvm->run(0), ExitReason::requested) << r.kvm->error_text();
    return r.get<std::uint64_t>(data_base);
}

} // namespace

TEST_F(RealKvm, an_eventfd_sends_its_message) {
    RealMachine r;
    ASSERT_EQ(r.make_kvm({.irqchip = kvm::KernelIrqchip::on}), "");
    kvm::KvmIrqs irqs(*r.machine);
    ASSERT_TRUE(irqs.set_pc_routes());
    ASSERT_TRUE(irqs.route_msi(24, {0xfee00000, 0x41}));
    UniqueFd event(eventfd(0, EFD_NONBLOCK));
    ASSERT_TRUE(irqs.attach_irqfd(event.get(), 24));
    Knocking knocking(event.get());
    EXPECT_GE(interrupts_counted(r, CountsInterrupts(), 0x41), 1u);
}

TEST_F(RealKvm, the_end_of_a_level_interrupt_signals_the_resample_eventfd) {
    RealMachine r;
    ASSERT_EQ(r.make_kvm({.irqchip = kvm::KernelIrqchip::on}), "");
    if (!r.machine->caps().irqfd_resample) GTEST_SKIP() << "this KVM has no resampling irqfd";
    kvm::KvmIrqs irqs(*r.machine);
    ASSERT_TRUE(irqs.set_pc_routes());
    UniqueFd event(eventfd(0, EFD_NONBLOCK)), resample(eventfd(0, EFD_NONBLOCK));
    ASSERT_TRUE(irqs.attach_irqfd(event.get(), 20, resample.get()));
    {
        Knocking knocking(event.get());
        EXPECT_GE(interrupts_counted(r, CountsInterrupts(0x8042), 0x42), 1u);
    }
    std::uint64_t ends = 0;
    ASSERT_EQ(read(resample.get(), &ends, 8), 8) << "the EOI was not told of";
    EXPECT_GE(ends, 1u);
}

} // namespace vmm
