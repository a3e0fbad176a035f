// States of the interrupt controllers, to the kernel's form and back.
#include "tests/support/apic_rig.h"
#include "vmm/machine/pc/kernel_chips.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

namespace vmm {

namespace {

std::string bytes_of(auto const& state) {
    StateWriter writer;
    save_state(writer, state);
    return std::string(reinterpret_cast<char const*>(writer.bytes().data()), writer.bytes().size());
}

} // namespace

TEST(KernelChips, a_pic_comes_back_as_it_was) {
    std::mt19937 random(3);
    for (unsigned n = 0; n < 200; ++n)
        for (unsigned index = 0; index < 2; ++index) {
            dev::I8259Pair::Chip chip;
            auto lines = std::uint16_t(random());
            chip.irr = std::uint8_t(random()), chip.imr = std::uint8_t(random()), chip.isr = std::uint8_t(random());
            chip.lines = std::uint8_t(lines >> 8 * index);
            chip.elcr = std::uint8_t(random()) & (index ? 0xde : 0xf8);
            chip.vector_base = std::uint8_t(random()) & 0xf8;
            chip.first = random() & 7;
            chip.expected_icw = std::array{0, 2, 3, 4}[random() & 3];
            chip.icw4_needed = random() & 1, chip.special_fully_nested = random() & 1, chip.auto_eoi = random() & 1;
            chip.rotate_on_auto_eoi = random() & 1, chip.special_mask = random() & 1;
            chip.read_isr = random() & 1, chip.poll = random() & 1;
            if (index == 0) chip.irr &= ~4, chip.lines &= ~4; // the cascade is derived
            kvm_pic_state k = to_kvm(chip, index, lines);
            EXPECT_EQ(k.elcr_mask, index ? 0xde : 0xf8);
            EXPECT_EQ(bytes_of(from_kvm(k, index, lines)), bytes_of(chip));
        }
}

TEST(KernelChips, an_io_apic_comes_back_and_asks_only_for_its_levels) {
    dev::IoApic::State s;
    s.id = 3 << 24, s.select = 0x15, s.lines = 1u << 11 | 1u << 4;
    s.redirection.fill(0x10000);
    s.redirection[11] = std::uint64_t(2) << 56 | 0x8000 | 0x4000 | 0x59; // level, Remote IRR
    s.redirection[4] = 0x58;                                             // an edge that was sent
    kvm_ioapic_state k = to_kvm(s, 0xfec00000);
    EXPECT_EQ(k.irr, 1u << 11);
    EXPECT_EQ(k.redirtbl[11].fields.remote_irr, 1);
    EXPECT_EQ(k.redirtbl[11].fields.dest_id, 2);
    k.redirtbl[4].fields.delivery_status = 1; // not state
    EXPECT_EQ(bytes_of(from_kvm(k, s.lines)), bytes_of(s));
}

TEST(KernelChips, a_local_apic_comes_back_with_its_timer_where_it_stood) {
    test::ApicRig rig({5});
    rig.enable_all();
    dev::LocalApic& apic = rig.apic();
    apic.write(0x80, 4, 0x30);
    apic.write(0xd0, 4, 0x20000000);
    apic.write(0x350, 4, 0x700);
    apic.write(0x3e0, 4, 0x3); // divide by 16
    apic.write(0x320, 4, 0x20071);
    apic.write(0x380, 4, 100000);
    rig.advance(16 * 30'000);
    apic.receive({.vector = 0x91, .level_triggered = true});
    apic.receive({.vector = 0x55});
    EXPECT_EQ(apic.acknowledge(), 0x91);

    kvm::KernelApic k;
    k.tsc = 777, k.tsc_hz = 3'000'000'000;
    EXPECT_EQ(to_kvm(apic, k, {std::uint64_t(rig.clock.now())}), 0u);
    std::uint32_t current;
    std::memcpy(&current, k.page.regs + 0x390, 4);
    EXPECT_EQ(current, 70'000u);
    std::uint32_t id;
    std::memcpy(&id, k.page.regs + 0x20, 4);
    EXPECT_EQ(id, 5u << 24);

    dev::LocalApic::State back = from_kvm(k, rig.clock.now(), {std::uint64_t(rig.clock.now())});
    back.lint_level = apic.state().lint_level;
    test::ApicRig other({5});
    other.advance(rig.clock.now());
    ASSERT_TRUE(other.apic().adopt(back));
    EXPECT_EQ(bytes_of(other.apic().state()), bytes_of(apic.state()));
    EXPECT_EQ(other.apic().timer_current(), 70'000u);
    other.advance(16 * 70'000);
    EXPECT_TRUE(other.apic().state().irr[0x71 / 32] >> (0x71 % 32) & 1) << "the adopted timer never fired";
}

TEST(KernelChips, a_deadline_is_as_far_away_on_either_counter) {
    test::ApicRig rig;
    dev::LocalApic::State s = rig.apic().state();
    s.lvt[dev::LocalApic::timer] = 0x40071;
    s.tsc_deadline = 5'000'000;
    ASSERT_TRUE(rig.apic().adopt(s));
    kvm::KernelApic k;
    k.tsc = 1'000'000'000, k.tsc_hz = 3'000'000'000;
    to_kvm(rig.apic(), k, {1'000'000});
    EXPECT_EQ(k.tsc_deadline, 1'000'000'000u + 3 * 4'000'000u);
    EXPECT_EQ(from_kvm(k, 1'000'000, {1'000'000}).tsc_deadline, 5'000'000u);
    k.tsc = k.tsc_deadline + 5; // passed meanwhile: due, not forgotten
    EXPECT_EQ(from_kvm(k, 1'000'000, {1'000'000}).tsc_deadline, 1'000'001u);
}

TEST(KernelChips, a_one_shot_timer_that_is_over_does_not_go_off_again) {
    test::ApicRig rig;
    rig.enable_all();
    dev::LocalApic& apic = rig.apic();
    apic.write(0x3e0, 4, 0xb); // divide by 1
    apic.write(0x320, 4, 0x71);
    apic.write(0x380, 4, 1000);
    kvm::KernelApic k;
    k.tsc_hz = 1'000'000'000;
    EXPECT_EQ(to_kvm(apic, k, {}), 0u);
    EXPECT_EQ(k.word(0x380), 1000u);
    EXPECT_FALSE(timer_ended(k, 0)) << "it was not running";
    EXPECT_FALSE(timer_ended(k, 1000));
    rig.advance(2000);
    std::uint32_t left_out = to_kvm(apic, k, {});
    EXPECT_EQ(left_out, 1000u);
    EXPECT_EQ(k.word(0x380), 0u) << "the kernel would start it anew";
    EXPECT_TRUE(timer_ended(k, 400)) << "it has ended since";
    dev::LocalApic::State back = from_kvm(k, rig.clock.now(), {});
    put_back(back, left_out, rig.clock.now());
    ASSERT_EQ(apic.acknowledge(), 0x71);
    back.irr = {};
    ASSERT_TRUE(apic.adopt(back));
    EXPECT_EQ(apic.read(0x380, 4), 1000u);
    EXPECT_EQ(apic.timer_current(), 0u);
    rig.advance(1'000'000);
    EXPECT_FALSE(apic.interrupt_pending());
}

} // namespace vmm
