// Which guests a program's name asks for, and what who asks for foreign ones is told.
#include "parse_helper.h"
#include "vmm/options/architecture.h"

#include <gtest/gtest.h>

namespace vmm {

namespace {

std::string failure_as(char const* program, std::vector<char const*> words) {
    words.insert(words.begin(), program);
    auto parsed = parse_command_line(words, test::sample_offering());
    return parsed.ok() ? "no error" : parsed.error().message();
}
bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }

} // namespace

TEST(Architecture, names_without_one_and_names_of_x86_mean_x86) {
    for (char const* name :
         {"vmm", "kvm", "/usr/bin/vmm-system-x86_64", "qemu-system-i386", "qemu-system-x86_64-spice"})
        EXPECT_EQ(failure_as(name, {"-nographic"}), "no error") << name;
    EXPECT_TRUE(architecture_in_name("my-system").empty());
}
TEST(Architecture, a_name_of_another_one_is_refused_by_that_name) {
    for (char const* name : {"arm", "aarch64", "mips", "mipsel", "ppc", "riscv64", "x86_65"}) {
        std::string text = failure_as(("/usr/bin/vmm-system-" + std::string(name)).c_str(), {"-M", "virt"});
        EXPECT_EQ(text, std::string(name) + " guests are not built yet; this build runs guests of x86_64 and i386");
    }
}
TEST(Architecture, kvm_for_a_foreign_guest_says_what_kvm_runs_and_what_to_use) {
    using Words = std::vector<char const*>;
    for (Words const& words : {Words{"-enable-kvm"},
                               {"--enable-kvm", "-cpu", "host"},
                               {"-accel", "kvm"},
                               {"-accel", "accel=kvm,kernel-irqchip=split"},
                               {"-M", "virt,accel=kvm"},
                               {"-machine", "accel=kvm"}}) {
        std::string text = failure_as("qemu-system-aarch64", words);
        EXPECT_TRUE(text.starts_with("invalid accelerator kvm: ")) << text;
        EXPECT_TRUE(has(text, "x86 guests only") && has(text, "-accel tcg") &&
                    has(text, "aarch64 guests are not built yet"))
            << text;
    }
    for (Words const& words : {Words{},
                               {"-accel", "tcg"},
                               {"-accel", "kvm", "-accel", "tcg"},
                               {"-M", "virt,accel=kvm:tcg"},
                               {"-append", "-enable-kvm"},
                               {"-accel"}})
        EXPECT_FALSE(has(failure_as("qemu-system-aarch64", words), "kvm"));
}
TEST(Architecture, questions_about_the_program_are_answered_under_any_name) {
    for (char const* question : {"-version", "--help", "-h"}) {
        std::vector<char const*> words = {"qemu-system-ppc", question};
        auto parsed = parse_command_line(words, test::sample_offering());
        ASSERT_TRUE(parsed.ok()) << parsed.error().message();
        EXPECT_TRUE(parsed->print_and_exit.has_value());
    }
}

} // namespace vmm
