#include "vmm/options/table.h"

namespace vmm {

namespace {
using B = BuiltFeatures;
constexpr OptionRow rows[] = {
    {"", "", "Standard options:"},
    {"h", "", "display this help and exit", on_help},
    {"help", "", "display this help and exit", on_help},
    {"version", "", "display version information and exit", on_version},
    {"machine", "[type=]name[,prop[=value][,...]]", "selects emulated machine ('-machine help' for list)", on_machine},
    {"M", "name", "the same as -machine", on_machine},
    {"cpu", "cpu", "select CPU ('-cpu help' for list)", on_cpu},
    {"accel", "[accel=]accelerator[,prop[=value][,...]]", "select accelerator ('-accel help' for list)", on_accel},
    {"enable-kvm", "", "enable KVM full virtualization support", on_enable_kvm},
    {"smp", "[[cpus=]n][,maxcpus=maxcpus][,sockets=sockets][,cores=cores][,threads=threads]", "set the number of CPUs",
     on_smp},
    {"m", "[size=]megs", "configure guest RAM; suffixes k, M, G, T", on_memory},
    {"mem-path", "FILE", "provide backing storage for guest RAM", nullptr, "guest RAM in a file"},
    {"mem-prealloc", "", "preallocate guest memory", on_mem_prealloc},
    {"k", "language", "use keyboard layout (for example 'fr' for French)", on_text},
    {"device", "driver[,prop[=value][,...]]", "add device ('-device help' for list)", on_device},
    {"name", "string1[,process=string2][,debug-threads=on|off]", "set the name of the guest", on_name},
    {"uuid", "%08x-%04x-%04x-%04x-%012x", "specify machine UUID", on_text},
    {"boot",
     "[order=drives][,once=drives][,menu=on|off][,splash=file][,splash-time=ms][,reboot-timeout=ms][,strict=on|off]",
     "'drives': floppy (a), hard disk (c), CD-ROM (d), network (n)", on_boot},
    {"rtc", "[base=utc|localtime|<datetime>][,clock=host|rt|vm][,driftfix=none|slew]", "set the RTC base and clock",
     on_rtc},
    {"nodefaults", "", "don't create default devices", on_flag},
    {"no-user-config", "", "accepted; there are no configuration files", on_ignored},
    {"no-acpi", "", "disable ACPI", on_machine_property_off},
    {"no-hpet", "", "disable HPET", on_machine_property_off},
    {"smbios", "type=n[,...]", "specify SMBIOS fields", nullptr, "setting SMBIOS fields"},
    {"acpitable", "[...]", "add an ACPI table", nullptr, "adding ACPI tables"},
    {"fw_cfg", "[name=]<name>,file=<file>", "add a fw_cfg entry", nullptr, "adding fw_cfg entries"},
    {"global", "driver.property=value", "set a default property", nullptr, "setting default properties"},
    {"object", "TYPENAME[,PROP1=VALUE1,...]", "create an object", nullptr, "creating objects"},
    {"set", "group.id.arg=value", "set a parameter of an option", nullptr, "changing options of other options"},
    {"numa", "node[,...]", "NUMA nodes", nullptr, "NUMA"},
    {"icount", "[shift=N|auto]", "instruction counting", nullptr, "instruction counting"},
    {"fsdev", "...", "share a host folder", nullptr, "sharing host folders"},
    {"virtfs", "...", "share a host folder", nullptr, "sharing host folders"},
    {"share", "dir[,ro][,tag]", "share a host folder", nullptr, "sharing host folders"},
    {"watchdog", "model", "add a watchdog", nullptr, "a watchdog device"},
    {"watchdog-action", "action", "what a watchdog does", nullptr, "a watchdog device"},

    {"", "", "Block device options:"},
    {"fda", "file", "use 'file' as floppy disk 0 image", on_drive_slot},
    {"fdb", "file", "use 'file' as floppy disk 1 image", on_drive_slot},
    {"hda", "file", "use 'file' as hard disk 0 image", on_drive_slot},
    {"hdb", "file", "use 'file' as hard disk 1 image", on_drive_slot},
    {"hdc", "file", "use 'file' as hard disk 2 image", on_drive_slot},
    {"hdd", "file", "use 'file' as hard disk 3 image", on_drive_slot},
    {"cdrom", "file", "use 'file' as CD-ROM image", on_drive_slot},
    {"drive",
     "[file=file][,if=type][,bus=n][,unit=m][,media=d][,index=i][,format=f][,snapshot=on|off][,readonly=on|off]",
     "use 'file' as a drive image", on_drive},
    {"blockdev", "[driver=]driver[,node-name=N]", "configure a block backend", nullptr, "disks"},
    {"iscsi", "[...]", "iSCSI session parameters", nullptr, "iSCSI"},
    {"mtdblock", "file", "on-board flash image", nullptr, "on-board flash"},
    {"sd", "file", "SecureDigital card image", nullptr, "SD cards"},
    {"pflash", "file", "parallel flash image", nullptr, "parallel flash"},
    {"snapshot", "", "write to temporary files instead of disk image files", on_flag},
    {"no-fd-bootchk", "", "boot floppies without a boot signature", nullptr, "disks"},
    {"win2k-hack", "", "for installing Windows 2000", nullptr, "disks"},
    {"option-rom", "file", "load an option ROM", nullptr, "option ROMs"},

    {"", "", "USB and sound options:"},
    {"usb", "", "enable on-board USB host controller", nullptr, "USB"},
    {"usbdevice", "name", "add the host or guest USB device 'name'", nullptr, "USB"},
    {"audio", "[driver=]driver", "audio backend and card", nullptr, "sound"},
    {"audiodev", "[driver=]driver,id=id", "audio backend", nullptr, "sound"},
    {"audio-help", "", "audio settings", nullptr, "sound"},

    {"", "", "Display options:"},
    {"display", "none|sdl|vnc=...", "select display backend type", on_display},
    {"nographic", "", "no window: serial port 0 and monitor in this terminal", on_flag},
    {"vga", "[std|cirrus|virtio|none]", "select video card type", on_vga},
    {"full-screen", "", "start in full screen", nullptr, "a graphical window"},
    {"rotate", "<deg>", "rotate the output", nullptr, "a graphical window"},
    {"portrait", "", "rotate the output by 90 degrees", nullptr, "a graphical window"},
    {"g", "WxH[xDEPTH]", "set the initial graphical resolution", nullptr, "a graphical window"},
    {"vnc", "<display>", "remote display", nullptr, "the VNC server"},
    {"spice", "...", "remote display", nullptr, "SPICE"},

    {"", "", "Network options:"},
    {"netdev", "user|tap|socket,id=str[,...]", "configure a network backend", on_netdev},
    {"nic", "user|tap|none[,model=...]", "configure a network card and its backend", on_netdev},
    {"net", "nic|user|tap|none[,...]", "old way to configure the network", on_netdev},
    {"p", "[address:]port:port[/udp]", "forward a port of the host to the guest", nullptr, "user networking"},

    {"", "", "Character device options:"},
    {"chardev", "null|stdio|file|pipe|pty|socket,id=id[,mux=on|off][,...]", "make a character backend", on_chardev},
    {"serial", "dev", "redirect the serial port to char device 'dev'", on_serial},
    {"parallel", "dev", "redirect the parallel port to char device 'dev'", on_parallel},
    {"monitor", "dev", "redirect the monitor to char device 'dev'", on_monitor},
    {"mon", "[chardev=]name[,mode=readline|control]", "put a monitor on a character backend", on_mon},
    {"qmp", "dev", "like -monitor but opens in 'control' mode", nullptr, "the QMP monitor"},
    {"qmp-pretty", "dev", "like -qmp but uses pretty JSON formatting", nullptr, "the QMP monitor"},
    {"debugcon", "dev", "redirect the debug console to char device 'dev'", on_debugcon},
    {"echr", "chr", "set terminal escape character instead of ctrl-a", on_escape_key},

    {"", "", "Boot image and kernel options:"},
    {"bios", "file", "set the filename for the BIOS", on_boot_file, "firmware", &B::firmware},
    {"kernel", "bzImage", "use 'bzImage' as kernel image (or an ELF or multiboot file)", on_boot_file},
    {"append", "cmdline", "use 'cmdline' as kernel command line", on_boot_file},
    {"initrd", "file", "use 'file' as initial ram disk; a directory is packed", on_boot_file},
    {"dtb", "file", "use 'file' as device tree image", nullptr, "a device tree"},
    {"uefi", "[secure]", "boot with UEFI firmware", nullptr, "firmware"},
    {"L", "path", "set the directory for the BIOS and keymaps", on_data_dir},

    {"", "", "Debug and expert options:"},
    {"S", "", "freeze CPU at startup (use 'c' to start execution)", on_flag},
    {"s", "", "shorthand for -gdb tcp::1234", on_gdb, "the gdb server", &B::gdb},
    {"gdb", "dev", "accept gdb connection on 'dev'", on_gdb, "the gdb server", &B::gdb},
    {"d", "item1,...", "enable logging of specified items ('-d help' for a list)", on_trace},
    {"D", "logfile", "output log to logfile (default stderr)", on_text},
    {"dfilter", "range,..", "filter debug output to range of addresses", on_trace_filter},
    {"perfmap", "", "generate a /tmp/perf-${pid}.map file for perf", on_flag},
    {"no-reboot", "", "exit instead of rebooting", on_flag},
    {"no-shutdown", "", "stop before shutdown", on_flag},
    {"action", "reboot=reset|shutdown|shutdown=poweroff|pause|panic=pause|shutdown|exit-failure|none",
     "what to do when the guest reboots, powers off or panics", on_action},
    {"loadvm", "[tag|id]", "start right away with a saved state", on_text, "saving and loading machine state",
     &B::snapshots},
    {"daemonize", "", "daemonize", on_flag},
    {"pidfile", "file", "write PID to 'file'", on_text},
    {"msg", "[timestamp=on|off]", "control error message format", nullptr, "time stamps on messages"},
    {"trace", "...", "specify tracing options", nullptr, "trace events"},
    {"singlestep", "", "run one instruction per block", nullptr, "single-instruction blocks"},
    {"sandbox", "on|off[,...]", "system call filter", nullptr, "the system call filter"},
    {"runas", "user", "change user after start", nullptr, "changing the user"},
    {"chroot", "dir", "chroot after start", nullptr, "chroot"},
    {"overcommit", "[mem-lock=on|off][cpu-pm=on|off]", "memory and CPU overcommit hints", nullptr, "overcommit hints"},
    {"incoming", "...", "wait for an incoming migration", nullptr, "migration"},
    {"preconfig", "", "pause before the machine is made", nullptr, "configuring a machine by QMP"},
    {"dump-vmstate", "file", "describe the state of devices", nullptr, "migration"},
    {"only-migratable", "", "allow only migratable devices", nullptr, "migration"},
    {"readconfig", "file", "read options from a file", nullptr, "reading options from a file"},
    {"writeconfig", "file", "write the options to a file", nullptr, "writing options to a file"},
    {"print-cmd", "", "print the command line in full", nullptr, "printing the command line in full"},
    {"trace-boot", "", "print when the parts of a boot were reached", nullptr, "the boot's timeline"},
    {"grace", "seconds", "how long a guest may take to power off on SIGTERM", nullptr,
     "asking the guest to power off on SIGTERM"},
    {"exec", "command", "run a command in the guest", nullptr, "running a command in the guest"},
    {"seed", "number", "seed the random number generator", nullptr, "a seed for random numbers"},
    {"compat", "...", "policy for deprecated things", nullptr, "a policy for deprecated things"},
    {"async-teardown", "", "free memory in another process", nullptr, "teardown in another process"},
    {"enable-sync-profile", "", "profile locks", nullptr, "a profile of locks"},
    {"xen-domid", "id", "Xen guest", nullptr, "Xen"},
    {"xen-attach", "", "attach to a Xen guest", nullptr, "Xen"},
    {"xen-domid-restrict", "", "limit Xen", nullptr, "Xen"},
    {"plugin", "[file=]file", "load a plugin", nullptr, "loading plugins"},
    {"semihosting", "", "semihosting", nullptr, "semihosting"},
    {"tpmdev", "...", "TPM", nullptr, "a TPM"},
    {"add-fd", "fd=fd,set=set", "add a file descriptor to a set", nullptr, "file descriptor sets"},
};
// "disks are", "USB is", "loading plugins is".
bool plural(std::string_view what) {
    bool const activity = what.substr(0, what.find(' ')).ends_with("ing");
    return !activity && what.ends_with("s") && !what.ends_with("ss");
}
} // namespace

std::span<OptionRow const> option_table() { return rows; }

OptionRow const* find_option(std::string_view name) {
    if (name.empty()) return nullptr;
    for (auto table : {option_table(), legacy_option_table()})
        for (OptionRow const& row : table)
            if (row.name == name) return &row;
    return nullptr;
}

Error not_built(OptionRow const& row, std::string_view what) {
    return error("-{}: {} {} not built yet", row.name, what, plural(what) ? "are" : "is");
}

} // namespace vmm
