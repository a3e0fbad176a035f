// The run loop of a vCPU, exit by exit, on a fake KVM.
#include "fixture.h"

#include <algorithm>
#include <thread>

namespace vmm::kvm {

namespace {

using KvmVcpuTest = KvmFixture;

std::function<int(kvm_run&)> port(bool out, std::uint16_t number, std::uint8_t size, std::uint32_t count,
                                  std::vector<std::uint8_t> data = {}) {
    return [=](kvm_run& run) {
        run.exit_reason = KVM_EXIT_IO;
        run.io.direction = out ? KVM_EXIT_IO_OUT : KVM_EXIT_IO_IN;
        run.io.port = number, run.io.size = size, run.io.count = count, run.io.data_offset = 4096;
        std::ranges::copy(data, reinterpret_cast<std::uint8_t*>(&run) + 4096);
        return 0;
    };
}
std::function<int(kvm_run&)> exit_with(std::uint32_t reason) {
    return [=](kvm_run& run) { return run.exit_reason = reason, 0; };
}

} // namespace

TEST_F(KvmVcpuTest, a_repeated_port_write_arrives_item_by_item) {
    ASSERT_TRUE(start());
    fake.script = {port(true, 0x3f8, 2, 3, {1, 2, 3, 4, 5, 6}), exit_with(KVM_EXIT_HLT)};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    ASSERT_EQ(bus.port_writes.size(), 3u);
    EXPECT_EQ(bus.port_writes[1], (test::FakeCpuBus::Access{0x3f8, 2, 0x0403}));
}

TEST_F(KvmVcpuTest, a_port_read_returns_its_bytes_in_the_run_page) {
    ASSERT_TRUE(start());
    std::uint32_t seen = 0;
    fake.script = {port(false, 0x60, 4, 1), [&](kvm_run& run) {
                       std::memcpy(&seen, reinterpret_cast<std::uint8_t*>(&run) + 4096, 4);
                       return run.exit_reason = KVM_EXIT_HLT, 0;
                   }};
    vcpu->run(0);
    EXPECT_EQ(seen, 0x60606060u);
}

TEST_F(KvmVcpuTest, an_odd_mmio_length_is_split_into_powers_of_two) {
    ASSERT_TRUE(start());
    fake.script = {[](kvm_run& run) {
                       run.exit_reason = KVM_EXIT_MMIO;
                       run.mmio.phys_addr = 0x9000'0000, run.mmio.len = 7, run.mmio.is_write = 1;
                       for (unsigned i = 0; i < 7; ++i) run.mmio.data[i] = std::uint8_t(i + 1);
                       return 0;
                   },
                   exit_with(KVM_EXIT_HLT)};
    vcpu->run(0);
    ASSERT_EQ(bus.mmio_writes.size(), 3u);
    EXPECT_EQ(bus.mmio_writes[0], (test::FakeCpuBus::Access{0x9000'0000, 4, 0x04030201}));
    EXPECT_EQ(bus.mmio_writes[1], (test::FakeCpuBus::Access{0x9000'0004, 2, 0x0605}));
    EXPECT_EQ(bus.mmio_writes[2], (test::FakeCpuBus::Access{0x9000'0006, 1, 7}));
}

TEST_F(KvmVcpuTest, an_exit_asked_for_amid_io_comes_after_the_instruction_finished) {
    ASSERT_TRUE(start());
    bus.on_port_write = [&](auto...) { vcpu->request_exit(); };
    fake.script = {port(true, 0x80, 1, 1, {1})};
    unsigned before = unsigned(vcpu->exits());
    EXPECT_EQ(vcpu->run(0), ExitReason::requested);
    EXPECT_EQ(vcpu->exits() - before, 2u) << "KVM must be entered once more, with immediate_exit, to finish the OUT";
}

TEST_F(KvmVcpuTest, an_interrupt_waits_for_the_window_and_is_injected_once) {
    ASSERT_TRUE(start());
    bus.pending = true;
    fake.script = {[](kvm_run& run) {
                       EXPECT_TRUE(run.request_interrupt_window);
                       run.exit_reason = KVM_EXIT_IRQ_WINDOW_OPEN, run.ready_for_interrupt_injection = run.if_flag = 1;
                       return 0;
                   },
                   [&](kvm_run& run) {
                       EXPECT_EQ(fake.interrupts, std::vector<std::uint32_t>{0x40});
                       EXPECT_FALSE(run.request_interrupt_window);
                       return run.exit_reason = KVM_EXIT_HLT, 0;
                   }};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    EXPECT_EQ(bus.acknowledged, 1u);
}

TEST_F(KvmVcpuTest, a_halted_cpu_wakes_for_an_interrupt_only_with_if_set) {
    ASSERT_TRUE(start());
    auto halt = [](bool interrupts) {
        return [=](kvm_run& run) { return run.exit_reason = KVM_EXIT_HLT, run.if_flag = interrupts, 0; };
    };
    fake.script = {halt(false)};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    bus.pending = true;
    EXPECT_FALSE(vcpu->has_work());
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    vcpu->signal(CpuSignal::nmi, 0);
    EXPECT_TRUE(vcpu->has_work());
    bus.pending = false;
    fake.script = {halt(true)};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    EXPECT_FALSE(vcpu->has_work());
    bus.pending = true;
    EXPECT_TRUE(vcpu->has_work());
}

TEST_F(KvmVcpuTest, cr8_goes_both_ways) {
    ASSERT_TRUE(start());
    bus.cr8 = 5;
    fake.script = {[](kvm_run& run) {
        EXPECT_EQ(run.cr8, 5u);
        run.cr8 = 9;
        return run.exit_reason = KVM_EXIT_HLT, 0;
    }};
    vcpu->run(0);
    EXPECT_EQ(bus.cr8, 9);
}

TEST_F(KvmVcpuTest, init_then_sipi_starts_the_cpu_where_the_vector_says) {
    ASSERT_TRUE(start());
    vcpu->reset(false);
    EXPECT_EQ(vcpu->run(0), ExitReason::wait_for_sipi);
    EXPECT_FALSE(vcpu->has_work());
    vcpu->signal(CpuSignal::sipi, 0x9a);
    EXPECT_TRUE(vcpu->has_work());
    vcpu->signal(CpuSignal::nmi, 0);
    fake.script = {exit_with(KVM_EXIT_HLT)};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    x86::State s = vcpu->state();
    EXPECT_EQ(s.seg[x86::cs].base, 0x9a000u);
    EXPECT_EQ(s.seg[x86::cs].selector, 0x9a00u);
    EXPECT_EQ(s.rip, 0u);
    vcpu->signal(CpuSignal::sipi, 0x10); // a running CPU ignores it
    vcpu->request_exit();
    vcpu->run(0);
    EXPECT_EQ(vcpu->state().seg[x86::cs].base, 0x9a000u);
}

TEST_F(KvmVcpuTest, an_msr_nobody_knows_is_refused_and_a_known_one_answered) {
    ASSERT_TRUE(start());
    auto read = [](std::uint32_t index) {
        return [=](kvm_run& run) {
            run.exit_reason = KVM_EXIT_X86_RDMSR, run.msr.index = index;
            return 0;
        };
    };
    fake.script = {read(0x802),
                   [&](kvm_run& run) {
                       EXPECT_EQ(run.msr.error, 1);
                       return read(0x1b)(run);
                   },
                   [&](kvm_run& run) {
                       EXPECT_EQ(run.msr.error, 0);
                       EXPECT_EQ(run.msr.data, bus.apic_base);
                       return run.exit_reason = KVM_EXIT_SHUTDOWN, 0;
                   }};
    EXPECT_EQ(vcpu->run(0), ExitReason::shutdown);
}

TEST_F(KvmVcpuTest, an_emulation_failure_is_told_with_bytes_and_registers) {
    ASSERT_TRUE(start());
    x86::State s = vcpu->state();
    s.gpr[x86::rax] = 0x1122334455667788;
    vcpu->set_state(s);
    fake.script = {[](kvm_run& run) {
        run.exit_reason = KVM_EXIT_INTERNAL_ERROR;
        run.emulation_failure.suberror = KVM_INTERNAL_ERROR_EMULATION;
        run.emulation_failure.ndata = 4;
        run.emulation_failure.flags = KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES;
        run.emulation_failure.insn_size = 3;
        run.emulation_failure.insn_bytes[0] = 0x0f, run.emulation_failure.insn_bytes[1] = 0xae,
        run.emulation_failure.insn_bytes[2] = 0x20;
        return 0;
    }};
    EXPECT_EQ(vcpu->run(0), ExitReason::internal_error);
    EXPECT_NE(vcpu->error_text().find("code: 0f ae 20"), std::string::npos) << vcpu->error_text();
    EXPECT_NE(vcpu->error_text().find("1122334455667788"), std::string::npos);
}

TEST_F(KvmVcpuTest, every_unknown_exit_and_failed_entry_ends_in_an_error) {
    ASSERT_TRUE(start());
    for (std::uint32_t reason : {0u, 9u, 999u}) {
        vcpu = KvmVcpu::create({.machine = *machine, .bus = bus, .model = model, .cpuid = {}, .bsp = true}).value();
        fake.script = {exit_with(reason)};
        EXPECT_EQ(vcpu->run(0), ExitReason::internal_error) << reason;
        EXPECT_FALSE(vcpu->error_text().empty());
    }
}

TEST_F(KvmVcpuTest, a_kick_from_another_thread_is_never_lost) {
    ASSERT_TRUE(start());
    // KVM_RUN that only ends when kicked, as a guest in an endless loop.
    std::function<int(kvm_run&)> endless = [&](kvm_run& run) {
        while (!__atomic_load_n(&run.immediate_exit, __ATOMIC_SEQ_CST)) std::this_thread::yield();
        return -EINTR;
    };
    for (unsigned n = 0; n < 2000; ++n) {
        fake.script.assign(4, endless);
        std::thread other([&] { vcpu->request_exit(); });
        EXPECT_EQ(vcpu->run(0), ExitReason::requested);
        other.join();
    }
}

TEST_F(KvmVcpuTest, slots_change_only_while_no_cpu_is_in_the_guest) {
    ASSERT_TRUE(start());
    std::atomic<bool> inside{false}, stop{false};
    std::thread runner([&] {
        while (!stop) {
            fake.script = {[&](kvm_run& run) {
                inside = true;
                while (!__atomic_load_n(&run.immediate_exit, __ATOMIC_SEQ_CST)) std::this_thread::yield();
                inside = false;
                return -EINTR;
            }};
            vcpu->run(0);
        }
    });
    for (unsigned n = 0; n < 50; ++n) {
        while (!inside) std::this_thread::yield();
        auto id = memory.map({.name = "rom",
                              .range = AddressRange::of(0x10000, 0x1000),
                              .backing = Backing::of_ram(*ram),
                              .priority = 1,
                              .use = MapFor::reads});
        EXPECT_EQ(fake.slots.size(), 3u);
        memory.unmap(id);
        vcpu->request_exit();
    }
    stop = true;
    vcpu->request_exit();
    runner.join();
    EXPECT_FALSE(machine->broken());
}

TEST_F(KvmVcpuTest, dirty_pages_reach_their_blocks) {
    ASSERT_TRUE(start());
    ram->start_dirty_log();
    memory.notify_dirty_log_changed();
    ASSERT_EQ(fake.slots.begin()->second.flags, unsigned(KVM_MEM_LOG_DIRTY_PAGES));
    fake.dirty_bits = {1ull << 5, 0, 1};
    ASSERT_TRUE(machine->sync_dirty_log());
    EXPECT_TRUE(ram->page_dirty(5 * page_size));
    EXPECT_TRUE(ram->page_dirty(128 * page_size));
    EXPECT_FALSE(ram->page_dirty(6 * page_size));
}

// The kernel's APIC timer as KVM_GET_LAPIC shows it: the counts at one look after the other.
static void count_down(FakeKvm& fake, std::vector<std::uint32_t> counts) {
    fake.on_get_lapic = [counts, n = std::size_t(0)](kvm_lapic_state& page) mutable {
        std::uint32_t const initial = 1000, count = counts[std::min(n++, counts.size() - 1)];
        std::memcpy(page.regs + 0x380, &initial, 4);
        std::memcpy(page.regs + 0x390, &count, 4);
    };
}
static std::ptrdiff_t entries(FakeKvm const& fake) { return std::ranges::count(fake.requests, KVM_RUN); }

TEST_F(KvmVcpuTest, settling_with_a_timer_that_counts_on_tells_its_count) {
    ASSERT_TRUE(start({.irqchip = KernelIrqchip::on}));
    count_down(fake, {900, 800});
    EXPECT_EQ(vcpu->settle().value(), 800u);
    EXPECT_EQ(entries(fake), 1);
    EXPECT_EQ(fake.timer_waits, 0u);
}

TEST_F(KvmVcpuTest, settling_with_a_timer_that_is_over_waits_for_the_kernels_timers_before_the_entry) {
    ASSERT_TRUE(start({.irqchip = KernelIrqchip::on}));
    count_down(fake, {0});
    EXPECT_EQ(vcpu->settle().value(), 0u);
    EXPECT_EQ(entries(fake), 1);
    EXPECT_EQ(fake.timer_waits, 1u);
}

// Whether its interrupt came before or after the entry cannot be told, so there is another entry.
TEST_F(KvmVcpuTest, settling_with_a_timer_that_ends_around_the_entry_enters_again) {
    ASSERT_TRUE(start({.irqchip = KernelIrqchip::on}));
    count_down(fake, {10, 0});
    EXPECT_EQ(vcpu->settle().value(), 0u);
    EXPECT_EQ(entries(fake), 2);
    EXPECT_EQ(fake.timer_waits, 1u);
}

TEST_F(KvmVcpuTest, a_guest_within_the_guest_goes_to_another_vcpu_byte_by_byte) {
    ASSERT_TRUE(start());
    EXPECT_TRUE(vcpu->own_state().value().empty()) << "none is running";
    std::vector<std::uint8_t> bytes(sizeof(kvm_nested_state) + 1000, 0x5a);
    kvm_nested_state head{};
    head.flags = KVM_STATE_NESTED_GUEST_MODE, head.format = KVM_STATE_NESTED_FORMAT_VMX;
    head.size = std::uint32_t(bytes.size());
    head.hdr.vmx.vmxon_pa = 0x1000;
    std::memcpy(bytes.data(), &head, sizeof head);
    fake.nested_state = bytes;
    std::vector<std::uint8_t> own = vcpu->own_state().value();
    EXPECT_EQ(own, bytes);
    fake.nested_state.clear();
    ASSERT_TRUE(vcpu->set_own_state(own));
    EXPECT_EQ(fake.nested_state, bytes);
}

TEST_F(KvmVcpuTest, a_reset_ends_the_guest_of_a_guest) {
    for (std::uint16_t format : {KVM_STATE_NESTED_FORMAT_VMX, KVM_STATE_NESTED_FORMAT_SVM}) {
        ASSERT_TRUE(start());
        kvm_nested_state head{};
        head.flags = KVM_STATE_NESTED_GUEST_MODE, head.format = format, head.size = sizeof head + 1000;
        fake.nested_state.assign(head.size, 0x5a);
        std::memcpy(fake.nested_state.data(), &head, sizeof head);
        vcpu->reset(true);
        ASSERT_EQ(vcpu->error_text(), "");
        ASSERT_EQ(fake.nested_state.size(), sizeof head);
        std::memcpy(&head, fake.nested_state.data(), sizeof head);
        EXPECT_EQ(head.flags, format == KVM_STATE_NESTED_FORMAT_VMX ? 0u : unsigned(KVM_STATE_NESTED_GIF_SET));
        EXPECT_TRUE(vcpu->own_state().value().empty()) << "format " << format;
        fake.nested_state.clear();
        vcpu.reset(), machine.reset();
    }
}

TEST_F(KvmVcpuTest, a_guest_that_takes_no_events_goes_on_unless_its_state_is_lost) {
    ASSERT_TRUE(start());
    auto notify = [](std::uint32_t flags) {
        return [=](kvm_run& run) { return run.exit_reason = KVM_EXIT_NOTIFY, run.notify.flags = flags, 0; };
    };
    fake.script = {notify(0), exit_with(KVM_EXIT_HLT), notify(KVM_NOTIFY_CONTEXT_INVALID)};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    vcpu->set_state(x86::State{});
    EXPECT_EQ(vcpu->run(0), ExitReason::internal_error);
    EXPECT_NE(vcpu->error_text().find("state is lost"), std::string::npos) << vcpu->error_text();
}

TEST_F(KvmVcpuTest, a_kvm_without_nested_state_refuses_a_guest_within_the_guest) {
    fake.capabilities[KVM_CAP_NESTED_STATE] = 0;
    ASSERT_TRUE(start());
    EXPECT_TRUE(vcpu->own_state().value().empty());
    EXPECT_TRUE(vcpu->set_own_state({}));
    auto refused = vcpu->set_own_state(std::vector<std::uint8_t>(4096));
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message().find("guests of its own"), std::string::npos);
}

} // namespace vmm::kvm
