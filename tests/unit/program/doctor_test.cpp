// `vmm doctor` on hosts that lack things.
#include "tests/unit/kvm/fake_kvm.h"
#include "vmm/program/doctor.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

namespace vmm {

namespace {
std::string examined(int kvm_error, kvm::HostFacts facts, std::set<std::string> files) {
    kvm::FakeKvm kvm;
    kvm.open_error = kvm_error;
    auto has = [files](std::string const& path) { return files.contains(path); };
    return examine({.kvm = kvm, .facts = facts, .exists = has, .writable = has});
}
bool has(std::string const& text, char const* part) { return text.find(part) != std::string::npos; }
} // namespace

TEST(Doctor, a_bare_host_is_told_what_to_install_on_one_screen) {
    std::string text = examined(EACCES, {.virtualization = true, .user = "ann", .group = "kvm"}, {});
    EXPECT_TRUE(has(text, "usermod -aG kvm ann")) << text;
    EXPECT_TRUE(has(text, "apt install seabios")) << text;
    EXPECT_TRUE(has(text, "modprobe nbd")) << text;
    EXPECT_LE(std::ranges::count(text, '\n'), 24) << text;
}

TEST(Doctor, a_good_host_has_a_line_for_each_matter) {
    std::string text =
        examined(0, {.virtualization = true, .user = "ann", .group = "kvm"},
                 {"/usr/share/seabios/bios-256k.bin", "/usr/share/OVMF/OVMF_CODE.fd",
                  "/usr/share/seabios/vgabios-stdvga.bin", "/usr/lib/ipxe/qemu/efi-e1000.rom", "/dev/bus/usb",
                  "/dev/bus/usb/001/001", "/dev/nbd0", "/dev/net/tun", "/dev/snd/controlC0"});
    EXPECT_EQ(std::ranges::count(text, '\n'), 6) << text;
    EXPECT_EQ(text.find("\n no "), std::string::npos) << text;
}

TEST(Doctor, kvm_without_hardware_is_told_from_a_working_one) {
    std::string text = examined(0, {.virtualization = false, .user = {}, .group = {}}, {});
    EXPECT_TRUE(has(text, "neither vmx nor svm")) << text;
}

} // namespace vmm
