#include "vmm/program/offering.h"

#include "vmm/cpu/x86/cpu_model.h"

#include <sys/sysinfo.h>

namespace vmm {

Offering make_offering() {
    Offering o;
    o.version = VMM_VERSION;
    o.architectures = {"x86_64", "i386"};
    std::vector<PropertyInfo> const properties = {
        {"acpi", "OnOffAuto", "Enable ACPI"},
        {"dump-guest-core", "bool", "Include guest memory in a core dump"},
        {"hpet", "bool", "Enable/disable high precision event timer emulation"},
        {"initrd-check", "bool", "Refuse an initrd that Linux cannot take (on by default)"},
        {"mem-merge", "bool", "Accepted; guest memory is never merged"},
        {"kernel-irqchip", "on|off|split", "Configure KVM in-kernel irqchip"}};
    o.machines = {{.name = "pc",
                   .description = "Standard PC (i440FX + PIIX, 1996)",
                   .alias_of = "pc-i440fx-7.2",
                   .max_cpus = 255,
                   .properties = properties},
                  {.name = "pc-i440fx-7.2",
                   .description = "Standard PC (i440FX + PIIX, 1996)",
                   .alias_of = "",
                   .is_default = true,
                   .max_cpus = 255,
                   .properties = properties}};
    o.accels = {"tcg", "kvm"};
    o.cpu_models = x86::cpu_model_names();
    o.cpu_help = x86::describe_cpu_models();
    o.devices = {{.name = "isa-debug-exit",
                  .category = "Misc",
                  .bus = "ISA",
                  .alias = "",
                  .description = "ends the program with the status a guest writes",
                  .properties = {{"iobase", "uint32", "first port"}, {"iosize", "uint32", "ports, 1 to 4"}}},
                 {.name = "pc-testdev",
                  .category = "Misc",
                  .bus = "ISA",
                  .alias = "",
                  .description = "latches and interrupt lines for bare-metal test suites",
                  .properties = {}},
                 {.name = "isa-debugcon",
                  .category = "Input",
                  .bus = "ISA",
                  .alias = "",
                  .description = "debug console port",
                  .properties = {{"iobase", "uint32", "port"}, {"chardev", "str", "character backend"}}}};
    o.missing_devices = {"usb-",         "virtio-",  "ide-",     "scsi-",       "vhost-",         "pci-",
                         "pcie-",        "nvme",     "e1000",    "e1000e",      "rtl8139",        "ne2k_pci",
                         "pcnet",        "i82551",   "vmxnet3",  "AC97",        "intel-hda",      "hda-",
                         "sb16",         "adlib",    "gus",      "cs4231a",     "ES1370",         "VGA",
                         "cirrus-vga",   "qxl",      "qxl-vga",  "vmware-svga", "piix3-usb-uhci", "nec-usb-xhci",
                         "qemu-xhci",    "ich9-",    "ahci",     "lsi53c895a",  "megasas",        "isa-serial",
                         "isa-parallel", "isa-fdc",  "floppy",   "pci-serial",  "pvpanic",        "i6300esb",
                         "ib700",        "vfio-pci", "ivshmem-", "edu",         "loader",         "tpm-"};
    o.missing_machines = {"q35", "pc-q35-", "pc-i440fx-", "microvm", "isapc", "none", "x-remote"};
    o.missing_machine_properties = {{"usb", "off", "USB"},
                                    {"graphics", "off", "a graphic card"},
                                    {"vmport", "off", "VMware's port"},
                                    {"smm", "on", "a machine without SMM"},
                                    {"pic", "on", "a machine without PIC"},
                                    {"pit", "on", "a machine without PIT"},
                                    {"i8042", "on", "a machine without keyboard controller"},
                                    {"sata", "off", "SATA"},
                                    {"smbus", "off", "the SMBus"},
                                    {"nvdimm", "off", "NVDIMM"},
                                    {"suppress-vmdesc", "off", "migration"},
                                    {"memory-backend", "", "memory from -object"},
                                    {"memory-encryption", "", "encrypted memory"},
                                    {"confidential-guest-support", "", "encrypted memory"},
                                    {"pcspk-audiodev", "", "sound"},
                                    {"pflash0", "", "parallel flash"},
                                    {"pflash1", "", "parallel flash"},
                                    {"firmware", "", "firmware"},
                                    {"kernel", "", "naming boot files in -machine (use -kernel)"},
                                    {"initrd", "", "naming boot files in -machine (use -initrd)"},
                                    {"append", "", "naming boot files in -machine (use -append)"},
                                    {"dtb", "", "a device tree"},
                                    {"max-ram-below-4g", "", "moving the border of low RAM"},
                                    {"smbios-entry-point-type", "32", "a 64-bit SMBIOS entry point"},
                                    {"x-oem-id", "", "changing the ACPI tables"},
                                    {"x-oem-table-id", "", "changing the ACPI tables"}};
    struct sysinfo info {};
    if (sysinfo(&info) == 0) o.host_memory_bytes = (std::uint64_t(info.totalram) + info.totalswap) * info.mem_unit;
    return o;
}

} // namespace vmm
