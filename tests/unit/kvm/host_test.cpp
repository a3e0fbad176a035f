// What a user is told when KVM cannot be used.
#include "fixture.h"

namespace vmm::kvm {

namespace {
std::string message(int error, HostFacts host) {
    FakeKvm fake;
    fake.open_error = error;
    auto fd = open_device(fake, host);
    EXPECT_FALSE(fd);
    return fd ? "" : fd.error().message();
}
bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }
} // namespace

TEST(KvmHost, permission_denied_names_the_group_and_the_user) {
    std::string text = message(EACCES, {.virtualization = true, .user = "ann", .group = "kvm"});
    EXPECT_TRUE(text.starts_with("Could not access KVM kernel module: Permission denied")) << text;
    EXPECT_TRUE(has(text, "usermod -aG kvm ann")) << text;
}
TEST(KvmHost, a_device_that_is_open_to_root_only_is_told_how_to_open) {
    std::string text = message(EACCES, {.virtualization = true, .user = "ann", .group = "", .group_may_open = false});
    EXPECT_TRUE(has(text, "chgrp kvm /dev/kvm") && has(text, "usermod -aG kvm ann")) << text;
}
TEST(KvmHost, a_missing_module_is_told_from_a_missing_cpu_feature) {
    std::string module = message(ENOENT, {.virtualization = true, .intel = false, .user = {}, .group = {}});
    EXPECT_TRUE(has(module, "modprobe kvm_amd")) << module;
    std::string feature = message(ENOENT, {.virtualization = false, .user = {}, .group = {}});
    EXPECT_TRUE(has(feature, "no hardware virtualization")) << feature;
    EXPECT_FALSE(has(feature, "modprobe")) << feature;
}
TEST(KvmHost, a_foreign_architecture_is_not_even_opened) {
    FakeKvm fake;
    auto fd = open_device(fake, {.x86 = false, .user = {}, .group = {}});
    ASSERT_FALSE(fd);
    EXPECT_TRUE(has(fd.error().message(), "cannot run x86 guests"));
    EXPECT_EQ(fake.calls(), 0u);
}
TEST(KvmHost, another_api_version_is_refused) {
    FakeKvm fake;
    fake.api_version = 11;
    auto fd = open_device(fake, {.virtualization = true, .user = {}, .group = {}});
    ASSERT_FALSE(fd);
    EXPECT_TRUE(has(fd.error().message(), "API version 11"));
}
TEST(KvmHost, kvm_is_preferred_only_with_hardware_beneath) {
    FakeKvm fake;
    std::string why;
    EXPECT_TRUE(prefer_kvm(fake, {.virtualization = true, .user = {}, .group = {}}, why));
    EXPECT_FALSE(prefer_kvm(fake, {.virtualization = false, .user = {}, .group = {}}, why));
    EXPECT_TRUE(has(why, "neither vmx nor svm")) << why;
    fake.open_error = EACCES;
    EXPECT_FALSE(prefer_kvm(fake, {.virtualization = true, .user = {}, .group = {}}, why));
    EXPECT_EQ(why, "Could not access KVM kernel module: Permission denied");
}

using KvmProbe = KvmFixture;
TEST_F(KvmProbe, a_missing_capability_is_named) {
    fake.capabilities[KVM_CAP_XSAVE] = 0;
    auto done = start();
    ASSERT_FALSE(done);
    EXPECT_TRUE(has(done.error().message(), "KVM_CAP_XSAVE")) << done.error().message();
}
TEST_F(KvmProbe, too_many_slots_break_the_machine_with_a_reason) {
    fake.capabilities[KVM_CAP_NR_MEMSLOTS] = 32;
    ASSERT_TRUE(start());
    {
        AddressSpace::Batch batch(memory);
        for (unsigned n = 0; n < 40; ++n)
            memory.map({.name = "rom",
                        .range = AddressRange::of(n * 0x4000, 0x1000),
                        .backing = Backing::of_ram(*ram, 0x80000),
                        .priority = 1,
                        .use = MapFor::reads});
    }
    EXPECT_EQ(vcpu->run(0), ExitReason::internal_error);
    EXPECT_TRUE(has(vcpu->error_text(), "32 slots")) << vcpu->error_text();
}

} // namespace vmm::kvm
