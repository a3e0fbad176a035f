#include "vmm/kvm/kvm_host.h"

#include <cpuid.h>
#include <grp.h>
#include <linux/kvm.h>
#include <pwd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

namespace vmm::kvm {

HostFacts look_at_host() {
    HostFacts facts;
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    facts.intel = b == signature_INTEL_ebx;
    bool vmx = __get_cpuid(1, &a, &b, &c, &d) && (c >> 5 & 1);
    bool svm = __get_cpuid(0x80000001, &a, &b, &c, &d) && (c >> 2 & 1);
    facts.virtualization = vmx || svm;
    struct stat device {};
    facts.device_exists = stat(device_path, &device) == 0;
    if (facts.device_exists)
        facts.group_may_open = device.st_gid != 0 && (device.st_mode & (S_IRGRP | S_IWGRP)) == (S_IRGRP | S_IWGRP);
    char buffer[1024];
    struct passwd entry {
    }, *user = nullptr;
    if (getpwuid_r(geteuid(), &entry, buffer, sizeof buffer, &user) == 0 && user) facts.user = user->pw_name;
    struct group group_entry {
    }, *group = nullptr;
    char group_buffer[4096];
    if (facts.device_exists && device.st_gid != 0 &&
        getgrgid_r(device.st_gid, &group_entry, group_buffer, sizeof group_buffer, &group) == 0 && group)
        facts.group = group->gr_name;
    return facts;
}

Error explain_open_failure(int errno_value, HostFacts const& host) {
    std::string text = errno_error(errno_value, "Could not access KVM kernel module").message();
    char const* module = host.intel ? "kvm_intel" : "kvm_amd";
    if (!host.x86)
        text += "\nKVM on this host cannot run x86 guests: use -accel tcg";
    else if ((errno_value == EACCES || errno_value == EPERM) && !host.group_may_open)
        text += fmt::format("\n{} is open to root only: 'sudo chgrp kvm {} && sudo chmod 660 {}' opens it to the group "
                            "kvm, in which you have to be ('sudo usermod -aG kvm {}', and log in again), or use -accel "
                            "tcg",
                            device_path, device_path, device_path, host.user.empty() ? "$USER" : host.user);
    else if (errno_value == EACCES || errno_value == EPERM)
        text +=
            fmt::format("\n{} is not yours to open: 'sudo usermod -aG {} {}' and log in again, or use -accel tcg",
                        device_path, host.group.empty() ? "kvm" : host.group, host.user.empty() ? "$USER" : host.user);
    else if (errno_value == ENOENT && !host.virtualization)
        text += "\nThis CPU offers no hardware virtualization (no vmx or svm in CPUID): switch it on in the firmware "
                "setup, or, in a virtual machine, ask for nested virtualization; or use -accel tcg";
    else if (errno_value == ENOENT || errno_value == ENODEV || errno_value == ENXIO)
        text += fmt::format("\nThe kernel module is not loaded: 'sudo modprobe {}' ('dmesg | grep kvm' says why it "
                            "refuses), or use -accel tcg",
                            module);
    else if (errno_value == EBUSY)
        text += "\nAnother hypervisor on this host holds the CPU's virtualization: end it, or use -accel tcg";
    return Error(text, errno_value);
}

Result<int> open_device(KvmApi& api, HostFacts const& host) {
    if (!host.x86) return explain_open_failure(ENODEV, host);
    int fd = api.open(device_path);
    if (fd < 0) return explain_open_failure(-fd, host);
    int version = api.ioctl(fd, KVM_GET_API_VERSION, std::uintptr_t(0));
    if (version == KVM_API_VERSION) return fd;
    ::close(fd);
    if (version < 0) return kvm_error("KVM_GET_API_VERSION", version);
    return error("KVM of this host has API version {}; {} is needed: use -accel tcg", version, KVM_API_VERSION);
}

bool prefer_kvm(KvmApi& api, HostFacts const& host, std::string& why) {
    auto fd = open_device(api, host);
    if (!fd) {
        std::string const& text = fd.error().message();
        return why = text.substr(0, text.find('\n')), false;
    }
    ::close(*fd);
    if (!host.virtualization)
        return why = "/dev/kvm works, but this CPU has neither vmx nor svm: KVM would emulate every instruction", false;
    return why = "/dev/kvm works and the CPU has hardware virtualization", true;
}

} // namespace vmm::kvm
