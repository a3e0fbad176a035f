// x86::State through KVM's structures and back.
#include "fixture.h"
#include "vmm/base/fields.h"

#include <random>

namespace vmm::kvm {

namespace {

x86::State random_state(std::mt19937_64& random) {
    x86::State s;
    for (auto& r : s.gpr) r = random();
    s.rip = random(), s.rflags = (random() & 0x3f7fd5) | 2;
    for (unsigned i = 0; i < x86::seg_count; ++i) {
        s.seg[i] = {.base = random(),
                    .limit = std::uint32_t(random()),
                    .attributes = std::uint16_t((random() & 0xf0ff) | x86::attr::present),
                    .selector = std::uint16_t(random())};
    }
    s.seg[x86::tr].attributes = x86::attr::present | 11;
    s.gdtr = {random(), std::uint16_t(random())}, s.idtr = {random(), std::uint16_t(random())};
    s.cr0 = random(), s.cr2 = random(), s.cr3 = random(), s.cr4 = random(), s.efer = random(), s.xcr0 = random();
    for (auto& d : s.dr) d = random();
    s.dr6 = random(), s.dr7 = random();
    for (auto& y : s.ymm)
        for (auto& lane : y) lane = random();
    s.mxcsr = std::uint32_t(random()), s.pkru = std::uint32_t(random());
    for (auto& r : s.x87.r) r.mantissa = random(), r.sign_exponent = std::uint16_t(random());
    s.x87.fcw = std::uint16_t(random()), s.x87.fsw = std::uint16_t(random()), s.x87.tags = std::uint8_t(random());
    s.x87.fop = std::uint16_t(random()), s.x87.fip = random(), s.x87.fdp = random();
    for (auto& k : s.avx512.k) k = random();
    for (auto& z : s.avx512.zmm_high)
        for (auto& lane : z) lane = random();
    for (auto& z : s.avx512.hi16)
        for (auto& lane : z) lane = random();
    return s;
}

std::vector<std::uint8_t> bytes_of(x86::State const& s) {
    StateWriter writer;
    save_state(writer, s);
    return writer.take();
}

// Every component at Intel's places, so that the test does not depend on the host.
XsaveLayout full_layout() {
    XsaveLayout layout;
    layout.components = 0x2e7;
    auto set = [&](unsigned i, std::uint32_t offset, std::uint32_t size) {
        layout.offset[i] = offset, layout.size[i] = size;
    };
    set(2, 576, 256), set(5, 1088, 64), set(6, 1152, 512), set(7, 1664, 1024), set(9, 2688, 8);
    return layout;
}

} // namespace

TEST(KvmState, registers_round_trip_bit_for_bit) {
    std::mt19937_64 random(3);
    for (unsigned round = 0; round < 100; ++round) {
        x86::State s = random_state(random), back;
        kvm_regs regs{};
        kvm_sregs sregs{};
        kvm_debugregs debug{};
        kvm_xcrs xcrs{};
        abi::Xsave xsave{};
        to_kvm(s, regs), to_kvm(s, sregs), to_kvm(s, debug), to_kvm(s, xcrs), to_kvm(s, xsave, full_layout());
        from_kvm(regs, back), from_kvm(sregs, back), from_kvm(debug, back), from_kvm(xcrs, back),
            from_kvm(xsave, back, full_layout());
        ASSERT_EQ(bytes_of(s), bytes_of(back)) << "round " << round;
    }
}

TEST(KvmState, an_unusable_segment_stays_unusable) {
    x86::State s, back;
    s.seg[x86::ldtr].attributes = 0;
    kvm_sregs sregs{};
    to_kvm(s, sregs);
    EXPECT_TRUE(sregs.ldt.unusable);
    from_kvm(sregs, back);
    EXPECT_TRUE(back.seg[x86::ldtr].unusable());
}

TEST(KvmState, absent_xsave_components_are_initial) {
    x86::State s;
    s.ymm[3] = {1, 2, 3, 4}, s.x87.fcw = 0x27f, s.pkru = 5;
    abi::Xsave xsave{};
    to_kvm(s, xsave, full_layout());
    std::memset(reinterpret_cast<std::uint8_t*>(xsave.region) + 512, 0, 8); // XSTATE_BV
    from_kvm(xsave, s, full_layout());
    EXPECT_EQ(s.ymm[3], x86::Ymm{});
    EXPECT_EQ(s.x87.fcw, 0x37f);
    EXPECT_EQ(s.pkru, 0u);
}

TEST(KvmState, events_round_trip_by_kind) {
    struct Case {
        std::uint8_t vector;
        bool software, error;
    };
    for (Case c : {Case{14, false, true}, Case{0x40, false, false}, Case{0x80, true, false}, Case{2, false, false},
                   Case{6, false, false}, Case{3, true, false}}) {
        x86::State s, back;
        s.event_pending = true, s.event_vector = c.vector, s.event_is_software = c.software,
        s.event_has_error = c.error;
        s.event_error = c.error ? 7 : 0;
        s.nmi_blocked = true, s.interrupt_shadow = true, s.debug_shadow = true;
        kvm_vcpu_events events{};
        to_kvm(s, events, KVM_VCPUEVENT_VALID_SMM);
        EXPECT_EQ(events.exception.injected + events.interrupt.injected + events.nmi.injected, 1);
        from_kvm(events, back);
        EXPECT_EQ(bytes_of(s), bytes_of(back)) << "vector " << int(c.vector);
    }
}

TEST(KvmState, a_triple_fault_not_reported_yet_is_a_shut_down_cpu_and_a_new_state_ends_it) {
    kvm_vcpu_events events{};
    events.flags = KVM_VCPUEVENT_VALID_TRIPLE_FAULT, events.triple_fault.pending = 1;
    x86::State s;
    from_kvm(events, s);
    EXPECT_EQ(s.activity, x86::Activity::shutdown);
    to_kvm(s, events, KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
    EXPECT_EQ(events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT, KVM_VCPUEVENT_VALID_TRIPLE_FAULT);
    EXPECT_EQ(events.triple_fault.pending, 0);
    to_kvm(s, events, 0);
    EXPECT_FALSE(events.flags & KVM_VCPUEVENT_VALID_TRIPLE_FAULT) << "refused by a KVM that does not know it";
}

using KvmStateOfVcpu = KvmFixture;

TEST_F(KvmStateOfVcpu, set_state_then_state_is_the_same) {
    ASSERT_TRUE(start());
    std::mt19937_64 random(5);
    x86::State s = random_state(random);
    XsaveLayout host_layout = XsaveLayout::of_host();
    if (!(host_layout.components & 0x20)) s.avx512 = {};
    if (!(host_layout.components & 0x200)) s.pkru = 0;
    s.star = 1, s.lstar = 2, s.kernel_gs_base = 3, s.pat = 0x0007040600070406, s.tsc_aux = 9, s.mtrr.def_type = 0xc06;
    s.mtrr.variable[3] = 77, s.mtrr.fixed[10] = 0x0606060606060606, s.mc_banks[5] = 0x1234;
    vcpu->set_state(s);
    ASSERT_EQ(vcpu->error_text(), "");
    s.smbase = x86::State().smbase, s.xss = 0; // this host's list has neither
    EXPECT_EQ(bytes_of(vcpu->state()), bytes_of(s));
}

TEST_F(KvmStateOfVcpu, msrs_the_host_refuses_are_left_out_and_named_once) {
    fake.refused_msrs = {0x277, 0x405};
    ASSERT_TRUE(start());
    x86::State s;
    s.lstar = 42;
    vcpu->set_state(s);
    EXPECT_EQ(vcpu->error_text(), "");
    EXPECT_EQ(vcpu->state().lstar, 42u);
    // Refused later (some values only): the others still arrive.
    fake.refused_msrs.insert(0xc0000081);
    s.lstar = 43;
    vcpu->set_state(s);
    EXPECT_EQ(vcpu->error_text(), "");
    EXPECT_EQ(vcpu->state().lstar, 43u);
}

} // namespace vmm::kvm
