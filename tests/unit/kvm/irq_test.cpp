// Interrupt plumbing: what the kernel is asked.
#include "fixture.h"
#include "vmm/kvm/kvm_irq.h"

namespace vmm::kvm {

using KvmIrqTest = KvmFixture;

TEST_F(KvmIrqTest, level_irqfd_without_resample_support_is_refused_here) {
    fake.capabilities[KVM_CAP_IRQFD_RESAMPLE] = 0;
    ASSERT_TRUE(start({.irqchip = KernelIrqchip::on}));
    KvmIrqs irqs(*machine);
    EXPECT_TRUE(irqs.attach_irqfd(0, 24));
    EXPECT_FALSE(irqs.attach_irqfd(0, 24, 1));
}

TEST_F(KvmIrqTest, coalesced_writes_reach_the_bus_in_order_before_the_exit) {
    ASSERT_TRUE(start());
    ASSERT_TRUE(machine->add_coalesced_zone(0xa0000, 0x20000, false));
    fake.script = {[](kvm_run& run) {
        auto* ring = reinterpret_cast<abi::CoalescedRing*>(reinterpret_cast<std::uint8_t*>(&run) +
                                                           FakeKvm::coalesced_page * 4096);
        auto* writes = reinterpret_cast<kvm_coalesced_mmio*>(ring + 1);
        for (std::uint32_t n = 0; n < 3; ++n) {
            writes[n] = {};
            writes[n].phys_addr = 0xa0000 + n, writes[n].len = 1, writes[n].data[0] = std::uint8_t(n + 1);
        }
        ring->last = 3;
        run.exit_reason = KVM_EXIT_HLT;
        return 0;
    }};
    EXPECT_EQ(vcpu->run(0), ExitReason::halted);
    ASSERT_EQ(bus.mmio_writes.size(), 3u);
    EXPECT_EQ(bus.mmio_writes[2], (test::FakeCpuBus::Access{0xa0002, 1, 3}));
}

} // namespace vmm::kvm
