#include "vmm/program/doctor.h"

#include <fmt/core.h>
#include <unistd.h>

#include <initializer_list>

namespace vmm {

namespace {

// One line: a mark, what it is about, what was found; remedies go beneath, indented.
void line(std::string& text, char const* mark, char const* what, std::string const& found) {
    text += fmt::format("{:>3}  {:<10} ", mark, what);
    for (char c : found) {
        text += c;
        if (c == '\n') text += std::string(16, ' ');
    }
    text += '\n';
}

void examine_kvm(DoctorHost const& host, std::string& text) {
    auto fd = kvm::open_device(host.kvm, host.facts);
    if (!fd) return line(text, "no", "KVM", fd.error().message());
    ::close(*fd);
    if (host.facts.virtualization)
        return line(text, "ok", "KVM",
                    fmt::format("{} opens; the CPU has {}", kvm::device_path, host.facts.intel ? "vmx" : "svm"));
    line(text, "--", "KVM",
         fmt::format(
             "{} opens, but this CPU shows neither vmx nor svm: the host kernel would emulate every instruction.\n"
             "vmm's own engine is faster and is chosen by itself; -accel kvm insists on KVM",
             kvm::device_path));
}

void examine_firmware(DoctorHost const& host, std::string& text) {
    struct Firmware {
        char const *path, *name, *package;
    };
    constexpr Firmware files[] = {{"/usr/share/seabios/bios-256k.bin", "SeaBIOS", "seabios"},
                                  {"/usr/share/OVMF/OVMF_CODE.fd", "OVMF", "ovmf"},
                                  {"/usr/share/seabios/vgabios-stdvga.bin", "VGA BIOS", "seabios"},
                                  {"/usr/lib/ipxe/qemu/efi-e1000.rom", "iPXE", "ipxe-qemu"}};
    std::string found, missing;
    for (Firmware const& file : files) {
        if (host.exists(file.path))
            found += fmt::format("{}{}", found.empty() ? "" : ", ", file.name);
        else
            missing += fmt::format("\n{} is missing: 'sudo apt install {}'", file.name, file.package);
    }
    line(text,
         found.empty()     ? "no"
         : missing.empty() ? "ok"
                           : "--",
         "firmware", (found.empty() ? "none found" : found) + missing);
}

void examine_sound(DoctorHost const& host, std::string& text) {
    std::string runtime = fmt::format("/run/user/{}", geteuid());
    if (host.exists(runtime + "/pipewire-0")) return line(text, "ok", "sound", "PipeWire");
    if (host.exists(runtime + "/pulse/native")) return line(text, "ok", "sound", "PulseAudio");
    if (host.exists("/dev/snd/controlC0"))
        return line(
            text, host.writable("/dev/snd/controlC0") ? "ok" : "no", "sound",
            host.writable("/dev/snd/controlC0")
                ? "ALSA"
                : fmt::format("a sound card that is not yours to open: 'sudo usermod -aG audio {}'", host.facts.user));
    line(text, "--", "sound", "no sound server and no card: guests play to nowhere");
}

void examine_usb(DoctorHost const& host, std::string& text) {
    if (!host.exists("/dev/bus/usb")) return line(text, "--", "USB", "this host shows no USB bus");
    if (host.writable("/dev/bus/usb/001/001")) return line(text, "ok", "USB", "devices can be handed to guests");
    line(text, "no", "USB",
         "devices are not yours to open; for one device, as root:\n"
         "echo 'SUBSYSTEM==\"usb\", ATTR{idVendor}==\"VVVV\", MODE=\"0666\"' >/etc/udev/rules.d/50-vmm.rules, then "
         "replug");
}

void examine_nbd(DoctorHost const& host, std::string& text) {
    if (!host.exists("/dev/nbd0"))
        return line(text, "--", "nbd",
                    "the nbd module is not loaded ('sudo modprobe nbd max_part=8'): vmm-nbd -c needs it");
    line(text, host.writable("/dev/nbd0") ? "ok" : "no", "nbd",
         host.writable("/dev/nbd0") ? "/dev/nbd0 can be connected" : "/dev/nbd0 is root's: run vmm-nbd -c with sudo");
}

void examine_network(DoctorHost const& host, std::string& text) {
    std::string tap = host.writable("/dev/net/tun") ? "tap devices can be made too, given the right to"
                                                    : "no tap devices (/dev/net/tun): bridges need them";
    line(text, "ok", "network", "user networking needs no rights; " + tap);
}

} // namespace

DoctorHost doctor_host(kvm::KvmApi& kvm) {
    return {.kvm = kvm,
            .facts = kvm::look_at_host(),
            .exists = [](std::string const& path) { return ::access(path.c_str(), F_OK) == 0; },
            .writable = [](std::string const& path) { return ::access(path.c_str(), R_OK | W_OK) == 0; }};
}

std::string examine(DoctorHost const& host) {
    std::string text;
    examine_kvm(host, text);
    examine_firmware(host, text);
    examine_sound(host, text);
    examine_usb(host, text);
    examine_nbd(host, text);
    examine_network(host, text);
    return text;
}

} // namespace vmm
