// Which engine a command line gets on which host.
#include "tests/unit/kvm/fake_kvm.h"
#include "vmm/program/engine_choice.h"

#include <gtest/gtest.h>

namespace vmm {

namespace {

struct EngineChoice : testing::Test {
    kvm::FakeKvm kvm;
    kvm::HostFacts host{.virtualization = true, .user = "ann", .group = "kvm"};
    std::FILE* out = std::tmpfile();
    Log log{"vmm", out};
    Config config;
    ~EngineChoice() override { std::fclose(out); }
    Result<ChosenEngine> choose(std::vector<AccelConfig> accels) {
        config.accels = std::move(accels);
        return choose_engine(config, kvm, host, log);
    }
};
AccelConfig const wants_kvm{.name = "kvm", .properties = {}}, wants_tcg{.name = "tcg", .properties = {}};

} // namespace

TEST_F(EngineChoice, nothing_asked_and_hardware_there_is_kvm) {
    auto chosen = choose({});
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->name, "kvm");
}
TEST_F(EngineChoice, nothing_asked_and_no_hardware_is_tcg_with_the_reason) {
    host.virtualization = false;
    auto chosen = choose({});
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->name, "tcg");
    EXPECT_NE(chosen->why.find("neither vmx nor svm"), std::string::npos) << chosen->why;
}
TEST_F(EngineChoice, kvm_insisted_on_runs_without_hardware) {
    host.virtualization = false;
    auto chosen = choose({wants_kvm});
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->name, "kvm");
}
TEST_F(EngineChoice, kvm_that_cannot_be_had_is_one_error_with_the_remedy) {
    kvm.open_error = EACCES;
    auto chosen = choose({wants_kvm});
    ASSERT_FALSE(chosen);
    EXPECT_NE(chosen.error().message().find("failed to initialize kvm"), std::string::npos);
    EXPECT_NE(chosen.error().message().find("usermod -aG kvm ann"), std::string::npos);
}
TEST_F(EngineChoice, kvm_then_tcg_falls_back_and_remembers_why) {
    kvm.open_error = ENOENT;
    auto chosen = choose({wants_kvm, wants_tcg});
    ASSERT_TRUE(chosen);
    EXPECT_EQ(chosen->name, "tcg");
    EXPECT_NE(chosen->why.find("No such file"), std::string::npos) << chosen->why;
}
TEST_F(EngineChoice, translator_properties_are_checked) {
    auto with = [&](char const* name, char const* value) {
        return choose({{.name = "tcg", .properties = {{{name, value}}}}}).ok();
    };
    EXPECT_TRUE(with("tb-size", "2"));
    EXPECT_TRUE(with("tb-size", "0")); // the default, as in QEMU
    EXPECT_TRUE(with("tb-size", "512M"));
    EXPECT_FALSE(with("tb-size", "1"));
    EXPECT_FALSE(with("tb-size", "2G"));
    EXPECT_FALSE(with("tb-size", "lots"));
    EXPECT_TRUE(with("profile", "on"));
    EXPECT_FALSE(with("profile", "7"));
    EXPECT_TRUE(with("torture", "off"));
    EXPECT_TRUE(with("torture", "77"));
    EXPECT_FALSE(with("torture", "much"));
}
TEST_F(EngineChoice, bad_properties_end_a_list_too_whatever_follows) {
    for (auto const& [name, value] : {std::pair{"kernel-irqchip", "maybe"},
                                      {"kernel-irqchip", ""},
                                      {"dirty-ring-size", "1000"},
                                      {"dirty-ring-size", "-1"},
                                      {"dirty-ring-size", "4096k"},
                                      {"dirty-ring-size", "99999999999999999999"}}) {
        auto chosen = choose({{.name = "kvm", .properties = {.items = {{name, value}}}}, wants_tcg});
        ASSERT_FALSE(chosen) << name << "=" << value;
        EXPECT_NE(chosen.error().message().find(name), std::string::npos) << chosen.error().message();
    }
    kvm.open_error = ENOENT; // nor does a KVM that is not there hide them
    EXPECT_FALSE(choose({wants_tcg, {.name = "kvm", .properties = {.items = {{"kernel-irqchip", "7"}}}}}));
}
TEST_F(EngineChoice, kernel_irqchip_is_on_unless_said_otherwise) {
    for (auto const& [value, there] : {std::pair{"", true}, {"on", true}, {"split", true}, {"off", false}}) {
        AccelConfig accel = wants_kvm;
        if (*value) accel.properties.items = {{"kernel-irqchip", value}};
        auto chosen = choose({accel});
        ASSERT_TRUE(chosen) << value;
        EXPECT_EQ(chosen->engine->controllers() != nullptr, there) << value;
    }
}
TEST_F(EngineChoice, bad_properties_are_refused) {
    config.machine.properties.items = {{"kernel-irqchip", "maybe"}};
    EXPECT_FALSE(choose({wants_kvm}));
    config.machine.properties.items.clear();
    EXPECT_FALSE(choose({{.name = "kvm", .properties = {.items = {{"dirty-ring-size", "1000"}}}}}));
}

} // namespace vmm
