#include "tests/unit/options/parse_helper.h"
#include "vmm/base/log.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

TEST(Options, the_issue_line_is_understood) {
    auto parsed =
        parse({"-m", "512", "-kernel", "vmlinuz", "-initrd", "initrd.gz", "-append", "console=ttyS0", "-nographic"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    Config const& config = parsed->config;
    EXPECT_EQ(config.program, "vmm");
    EXPECT_EQ(config.memory_bytes, 512ull << 20);
    EXPECT_EQ(config.kernel, "vmlinuz");
    EXPECT_EQ(config.initrd, "initrd.gz");
    EXPECT_EQ(config.append, "console=ttyS0");
    EXPECT_EQ(config.display, "none");
    ASSERT_EQ(config.chardevs.size(), 1u);
    EXPECT_EQ(config.chardevs[0].kind, CharKind::stdio);
    EXPECT_TRUE(config.chardevs[0].mux);
    EXPECT_FALSE(config.chardevs[0].signal);
    EXPECT_EQ(config.serials, std::vector<std::string>{"serial0"});
    ASSERT_EQ(config.monitors.size(), 1u);
    EXPECT_EQ(config.monitors[0].chardev, "serial0");
    EXPECT_TRUE(parsed->warnings.empty());
}

TEST(Options, nographic_with_serial_mon_stdio_is_the_same) {
    auto parsed = parse({"-nographic", "-serial", "mon:stdio"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    EXPECT_EQ(parsed->config.chardevs.size(), 1u);
    EXPECT_EQ(parsed->config.monitors.size(), 1u);
}

TEST(Options, the_test_program_line_is_understood) {
    auto parsed = parse({"-kernel", "p.elf", "-device", "isa-debug-exit,iobase=0xf4,iosize=0x4", "-debugcon", "stdio",
                         "-display", "none"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    Config const& config = parsed->config;
    ASSERT_EQ(config.devices.size(), 1u);
    EXPECT_EQ(config.devices[0].driver, "isa-debug-exit");
    EXPECT_EQ(*config.devices[0].properties.find("iobase"), "0xf4");
    ASSERT_TRUE(config.debugcon.has_value());
    EXPECT_EQ(config.debugcon->chardev, "debugcon");
    EXPECT_EQ(config.serials, std::vector<std::string>{"serial0"}); // a port that nothing listens to
    EXPECT_EQ(config.chardevs.back().kind, CharKind::console);
}

TEST(Options, two_dashes_are_as_good_as_one) {
    EXPECT_EQ(parse({"--m", "1G", "--nographic"})->config.memory_bytes, 1ull << 30);
}

TEST(Options, cpu_features_keep_their_order_and_sign) {
    auto parsed = parse({"-cpu", "max,+avx2,-smep,vendor=GenuineIntel,pmu"});
    ASSERT_TRUE(parsed.ok());
    auto const& items = parsed->config.cpu.properties.items;
    ASSERT_EQ(items.size(), 4u);
    EXPECT_EQ(items[0], std::pair(std::string("avx2"), std::string("on")));
    EXPECT_EQ(items[1], std::pair(std::string("smep"), std::string("off")));
    EXPECT_EQ(items[2].second, "GenuineIntel");
    EXPECT_EQ(items[3].second, "on");
}

TEST(Options, topology_is_filled_in) {
    SmpConfig smp = parse({"-smp", "4"})->config.smp;
    EXPECT_EQ(smp.cpus, 4u);
    EXPECT_EQ(smp.sockets * smp.cores * smp.threads, 4u);
    smp = parse({"-smp", "sockets=2,cores=2,threads=2"})->config.smp;
    EXPECT_EQ(smp.cpus, 8u);
    smp = parse({"-smp", "2,maxcpus=8,sockets=2"})->config.smp;
    EXPECT_EQ(smp.maxcpus, 8u);
    EXPECT_EQ(smp.cores, 4u);
}

TEST(Options, smp_0_runs_with_one_and_a_warning) {
    auto parsed = parse({"-smp", "0", "-nographic"});
    ASSERT_TRUE(parsed.ok());
    EXPECT_EQ(parsed->config.smp.cpus, 1u);
    ASSERT_EQ(parsed->warnings.size(), 1u);
    EXPECT_EQ(parsed->warnings[0].substr(0, 23), "Deprecated CPU topology");
}

TEST(Options, accelerators_are_tried_in_order) {
    auto accels = parse({"-machine", "pc,accel=kvm:tcg"})->config.accels;
    ASSERT_EQ(accels.size(), 2u);
    EXPECT_EQ(accels[0].name, "kvm");
    EXPECT_EQ(accels[1].name, "tcg");
    EXPECT_EQ(parse({"-accel", "tcg,engine=interp"})->config.accels[0].properties.items.size(), 1u);
    EXPECT_TRUE(parse({"-accel", "tcg,lockstep=on"})->config.lockstep);
}

TEST(Options, a_program_called_kvm_prefers_kvm) {
    std::vector<char const*> words = {"/usr/bin/qemu-kvm", "-nographic"};
    auto parsed = parse_command_line(words, sample_offering());
    ASSERT_TRUE(parsed.ok());
    ASSERT_EQ(parsed->config.accels.size(), 2u);
    EXPECT_EQ(parsed->config.accels[0].name, "kvm");
}

TEST(Options, help_arguments_print_and_exit) {
    EXPECT_EQ(*parse({"-machine", "?"})->print_and_exit,
              "Supported machines are:\n"
              "pc                   Standard PC (i440FX + PIIX, 1996) (alias of pc-i440fx-7.2)\n"
              "pc-i440fx-7.2        Standard PC (i440FX + PIIX, 1996) (default)\n");
    EXPECT_EQ(*parse({"-M", "pc,help"})->print_and_exit,
              "pc-i440fx-7.2-machine options:\n  acpi=<OnOffAuto>       - Enable ACPI\n  hpet=<bool>\n"
              "  graphics=<bool>\n");
    EXPECT_EQ(*parse({"-cpu", "?"})->print_and_exit, "Available CPUs:\n");
    EXPECT_EQ(*parse({"-accel", "help"})->print_and_exit, "Accelerators supported in VMM binary:\ntcg\nkvm\n");
    EXPECT_EQ(*parse({"-device", "help"})->print_and_exit,
              "Misc devices:\nname \"isa-debug-exit\", bus ISA\nname \"pc-testdev\", bus ISA\n");
    EXPECT_EQ(*parse({"-device", "isa-debug-exit,help"})->print_and_exit,
              "isa-debug-exit options:\n  iobase=<uint32>\n  iosize=<uint32>\n");
    EXPECT_NE(parse({"-h"})->print_and_exit->find("usage: vmm [options] [disk_image]"), std::string::npos);
    EXPECT_EQ(*parse({"-version"})->print_and_exit, "VMM emulator version 1.2.3\n");
    EXPECT_NE(parse({"-d", "help"})->print_and_exit->find("guest_errors"), std::string::npos);
}

TEST(Options, trace_items_and_ranges) {
    auto parsed = parse({"-d", "int,cpu", "-d", "in_asm", "-D", "log", "-dfilter", "0x1000+0x10,0x2000..0x20ff,100-1"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    EXPECT_EQ(parsed->config.trace_mask,
              std::uint32_t(Trace::interrupts) | std::uint32_t(Trace::cpu) | std::uint32_t(Trace::in_asm));
    ASSERT_EQ(parsed->config.trace_ranges.size(), 3u);
    EXPECT_EQ(parsed->config.trace_ranges[0].last, 0x100fu);
    EXPECT_EQ(parsed->config.trace_ranges[1].last, 0x20ffu);
    EXPECT_EQ(parsed->config.trace_ranges[2].first, 100u);
}

TEST(Options, socket_specs_in_both_spellings) {
    auto parsed = parse({"-serial", "tcp:localhost:4444,server,nowait", "-serial", "unix:/tmp/s,server=on,wait=off",
                         "-chardev", "socket,id=c,host=::1,port=99,telnet=on,server=on", "-serial", "chardev:c",
                         "-monitor", "telnet::5555,server"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    auto const& chardevs = parsed->config.chardevs;
    EXPECT_EQ(chardevs[0].host, "localhost");
    EXPECT_EQ(chardevs[0].port, "4444");
    EXPECT_TRUE(chardevs[0].server);
    EXPECT_FALSE(chardevs[0].wait);
    EXPECT_EQ(chardevs[1].kind, CharKind::unix_);
    EXPECT_FALSE(chardevs[1].wait);
    EXPECT_EQ(chardevs[2].host, "::1");
    EXPECT_TRUE(chardevs[2].telnet);
    EXPECT_TRUE(chardevs[3].telnet);
    EXPECT_EQ(chardevs[3].host, "");
    EXPECT_TRUE(chardevs[3].wait);
    EXPECT_EQ(parsed->config.serials, (std::vector<std::string>{"serial0", "serial1", "c"}));
}

TEST(Options, drives_take_their_places) {
    Offering offering = sample_offering();
    offering.built.disks = true;
    auto parsed = parse({"d.img", "-cdrom", "x.iso", "-drive", "file=a,,b,format=qcow2,if=ide", "-fda", "f"}, offering);
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    auto const& drives = parsed->config.drives;
    EXPECT_EQ(drives[0].id, "ide0-hd0");
    EXPECT_EQ(drives[1].id, "ide1-cd0");
    EXPECT_TRUE(drives[1].cdrom);
    EXPECT_EQ(drives[2].file, "a,b");
    EXPECT_EQ(drives[2].unit, 1u);
    EXPECT_EQ(drives[3].interface, "floppy");
}

TEST(Options, legacy_spellings_warn_once_and_work) {
    auto parsed = parse({"-no-kvm", "-kernel-kqemu", "-localtime", "-nographic"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    EXPECT_EQ(parsed->warnings.size(), 3u);
    EXPECT_EQ(parsed->config.accels[0].name, "tcg");
    EXPECT_TRUE(parsed->config.rtc.localtime);
}

TEST(Options, monitor_dash_stdio_is_stdio) {
    auto parsed = parse({"-monitor", "-stdio", "-display", "none"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    EXPECT_EQ(parsed->config.chardevs[0].kind, CharKind::stdio);
    EXPECT_EQ(parsed->warnings.size(), 1u);
}

TEST(Options, what_ends_the_run) {
    Config config = parse({"-no-reboot", "-no-shutdown", "-action", "panic=exit-failure"})->config;
    EXPECT_EQ(config.on_reboot, OnReboot::shutdown);
    EXPECT_EQ(config.on_shutdown, OnShutdown::pause);
    EXPECT_EQ(config.on_panic, OnPanic::exit_failure);
}

TEST(Options, udp_names_where_to_send_and_where_to_hear) {
    auto parsed = parse({"-serial", "udp:host:4555@127.0.0.1:4556", "-serial", "udp::4557", "-chardev",
                         "udp,id=c,host=::1,port=9,localport=10", "-serial", "chardev:c"});
    ASSERT_TRUE(parsed.ok()) << parsed.error().message();
    auto const& chardevs = parsed->config.chardevs;
    EXPECT_EQ(chardevs[0].kind, CharKind::udp);
    EXPECT_EQ(chardevs[0].host + " " + chardevs[0].port, "host 4555");
    EXPECT_EQ(chardevs[0].local_host + " " + chardevs[0].local_port, "127.0.0.1 4556");
    EXPECT_EQ(chardevs[1].host + " " + chardevs[1].port, " 4557");
    EXPECT_EQ(chardevs[2].host + " " + chardevs[2].port, "::1 9");
    EXPECT_EQ(chardevs[2].local_port, "10");
}
