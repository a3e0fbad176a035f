// What the program says to a wrong command line: a table of lines and answers, scripts depend on the texts.
#include "tests/unit/options/parse_helper.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::test;

namespace {
struct Row {
    std::vector<char const*> words;
    std::string_view message; // how the message starts
};
std::vector<Row> rows() {
    return {
        {{"-foo"}, "-foo: invalid option"},
        {{"--foo"}, "--foo: invalid option"},
        {{"-kernl", "x"}, "-kernl: invalid option; did you mean -kernel?"},
        {{"-m"}, "-m: requires an argument"},
        {{"-m", "foo"}, "-m foo: Parameter 'size' expects a non-negative number below 2^64\nOptional suffix k, M, G"},
        {{"-m", "-5"}, "-m -5: Parameter 'size' expects a non-negative number below 2^64"},
        {{"-m", "12abc"}, "-m 12abc: Parameter 'size' expects a non-negative number below 2^64"},
        {{"-m", "99999999999T"}, "-m 99999999999T: Parameter 'size' expects a non-negative number below 2^64"},
        {{"-m", "1,foo=2"}, "-m 1,foo=2: Invalid parameter 'foo'"},
        {{"-m", "0"}, "-m: 0 KiB is too little memory"},
        {{"-m", "1"}, "-m: 1024 KiB is too little memory"},
        {{"-smp", "300"}, "Invalid SMP CPUs 300. The max CPUs supported by machine 'pc-i440fx-7.2' is 255"},
        {{"-smp", "foo"}, "Parameter 'smp.cpus' expects integer"},
        {{"-smp", "cpus=2,foo=1"}, "Parameter 'smp.foo' is unexpected"},
        {{"-smp", "core=2"}, "Parameter 'smp.core' is unexpected; did you mean 'cores'?"},
        {{"-smp", "2,cores=3"}, "Invalid CPU topology: product of the hierarchy must match maxcpus"},
        {{"-boot", "x"}, "Invalid boot device 'x'"},
        {{"-boot", "foo=1"}, "Parameter 'boot.foo' is unexpected"},
        {{"-cpu", "foo"}, "unable to find CPU model 'foo'"},
        {{"-cpu", "qemu46"}, "unable to find CPU model 'qemu46'; did you mean 'qemu64'?"},
        {{"-machine", "foo"}, "unsupported machine type\nUse -machine help to list supported machines"},
        {{"-machine", "pc,foo=on"}, "Property 'pc-i440fx-7.2-machine.foo' not found"},
        {{"-accel", "foo"}, "-accel foo: invalid accelerator foo"},
        {{"-machine", "pc,accel=foo"}, "invalid accelerator foo"},
        {{"-enable-kvm", "-accel", "tcg"}, "The -accel and \"-machine accel=\" options are incompatible"},
        {{"-device", "e1000,netdev=n"}, "-device e1000,netdev=n: the 'e1000' device is not built yet"},
        {{"-device", "usb-host"}, "-device usb-host: the 'usb-host' device is not built yet"},
        {{"-share", "/tmp"}, "-share: sharing host folders is not built yet"},
        {{"-uefi", "secure"}, "-uefi: firmware is not built yet"},
        {{"-device", "foo"}, "-device foo: 'foo' is not a valid device model name"},
        {{"-device", "isa-debug-exit,foo=1"}, "-device isa-debug-exit,foo=1: Property 'isa-debug-exit.foo' not found"},
        {{"-netdev", "user"}, "-netdev user: Parameter 'id' is missing"},
        {{"-netdev", "foo,id=a"}, "-netdev foo,id=a: Parameter 'type' does not accept value 'foo'"},
        {{"-netdev", "user,id=a"}, "-netdev: user networking is not built yet"},
        {{"-vga", "foo"}, "unknown vga type: foo"},
        {{"-serial", "foo"},
         "-serial foo: 'foo' is not a valid char driver\n"
         "vmm: -serial foo: could not connect serial device to character backend 'foo'"},
        {{"-monitor", "foo"}, "-monitor foo: 'foo' is not a valid char driver\nvmm: -monitor foo: parse error: foo"},
        {{"-debugcon", "foo"},
         "-debugcon foo: 'foo' is not a valid char driver\n"
         "vmm: -debugcon foo: invalid character backend 'foo'"},
        {{"-serial", "mon:stdio", "-monitor", "stdio"},
         "-serial mon:stdio: cannot use stdio by multiple character devices"},
        {{"-nographic", "-serial", "stdio", "-monitor", "stdio"},
         "-serial stdio: cannot use stdio by multiple character devices"},
        {{"-serial", "chardev:nope"},
         "-serial chardev:nope: could not connect serial device to character backend 'chardev:nope'"},
        {{"-chardev", "foo,id=a"}, "-chardev foo,id=a: 'foo' is not a valid char driver name"},
        {{"-chardev", "stdio"}, "-chardev stdio: chardev: no id specified"},
        {{"-chardev", "file,id=a"}, "-chardev file,id=a: chardev: file: no filename given"},
        {{"-chardev", "null,id=a", "-chardev", "null,id=a"}, "-chardev null,id=a: Duplicate ID 'a' for chardev"},
        {{"-chardev", "stdio,id=a", "-serial", "chardev:a", "-mon", "chardev=a"}, "Device 'a' is in use"},
        {{"-append", "x"}, "-append only allowed with -kernel option"},
        {{"-initrd", "x"}, "-initrd only allowed with -kernel option"},
        {{"-append", "/boot/initrd.img", "root=/dev/sda1"},
         "-append /boot/initrd.img root=/dev/sda1: the kernel's arguments must be one word"},
        {{"-hda", "a", "-hda", "b"}, "-hda b: drive with bus=0, unit=0 (index=0) exists"},
        {{"-hdc", "a", "-cdrom", "boot.iso"},
         "-cdrom boot.iso: drive with bus=1, unit=0 (index=2) exists; -hdc and -cdrom are the same slot"},
        {{"-hda", "nofile"}, "-hda nofile: disks are not built yet"},
        {{"nofile"}, "nofile: disks are not built yet"},
        {{"-drive", "file=a,if=foo"}, "-drive file=a,if=foo: unsupported bus type 'foo'"},
        {{"-d", "foo"}, "-d foo: unknown log item 'foo'\nLog items (comma separated):"},
        {{"-dfilter", "foo"}, "-dfilter foo: Bad range specifier"},
        {{"-display", "foo"}, "-display foo: Parameter 'type' does not accept value 'foo'"},
        {{"-display", "sdl"}, "-display sdl: a graphical window is not built yet"},
        {{"-rtc", "foo=1"}, "-rtc foo=1: Invalid parameter 'foo'"},
        {{"-rtc", "bse=utc"}, "-rtc bse=utc: Invalid parameter 'bse'; did you mean 'base'?"},
        {{"-d", "in_as"}, "-d in_as: unknown log item 'in_as'; did you mean 'in_asm'?"},
        {{"-rtc", "base=foo"}, "-rtc base=foo: invalid datetime format\nvalid formats:"},
        {{"-rtc", "driftfix=foo"}, "-rtc driftfix=foo: invalid option value 'foo'; driftfix is none or slew"},
        {{"-rtc", "clock=foo"}, "-rtc clock=foo: invalid option value 'foo'; clock is host, rt or vm"},
        {{"-accel", "kvm:tcg"},
         "-accel kvm:tcg: invalid accelerator kvm:tcg; a list is written -machine accel=kvm:tcg"},
        {{"-serial", "tcp:localhost:99999"}, "-serial tcp:localhost:99999: port 99999 is beyond 65535"},
        {{"-serial", "tcp:localhost:100000000000000000000"},
         "-serial tcp:localhost:100000000000000000000: port 100000000000000000000 is beyond 65535"},
        {{"-serial", "tcp:localhost"}, "-serial tcp:localhost: 'localhost' needs a host and a port: tcp:HOST:PORT"},
        {{"-serial", "udp:localhost:65536"}, "-serial udp:localhost:65536: port 65536 is beyond 65535"},
        {{"-serial", "udp:localhost:1@:65536"}, "-serial udp:localhost:1@:65536: port 65536 is beyond 65535"},
        {{"-chardev", "socket,id=a,host=h,port=65536"},
         "-chardev socket,id=a,host=h,port=65536: port 65536 is beyond 65535"},
        {{"-chardev", "udp,id=a,host=h,port=1,localport=65536"},
         "-chardev udp,id=a,host=h,port=1,localport=65536: port 65536 is beyond 65535"},
        {{"-serial", "udp:host"}, "-serial udp:host: 'host' is not of the form HOST:PORT"},
        {{"-name", "a,foo=b"}, "-name a,foo=b: Invalid parameter 'foo'"},
        {{"-action", "reboot=bar"}, "-action reboot=bar: Parameter 'reboot' does not accept value 'bar'"},
        {{"-uuid", "x"}, "-uuid x: failed to parse UUID string: wrong format"},
        {{"-echr", "foo"}, "-echr foo: Bad argument to echr"},
        {{"-nographic", "-daemonize"}, "-nographic cannot be used with -daemonize"},
        {{"-usb"}, "-usb: USB is not built yet"},
        {{"-bios", "x"}, "-bios: firmware is not built yet"},
        {{"-redir", "tcp:5555::22"}, "-redir: user networking is not built yet"},
        {{"-soundhw", "hda"}, "-soundhw: sound is not built yet"},
        {{"-s"}, "-s: the gdb server is not built yet"},
        {{"-loadvm", "a"}, "-loadvm: saving and loading machine state is not built yet"},
    };
}
} // namespace

TEST(BadInput, each_wrong_line_gets_its_text) {
    for (Row const& row : rows()) {
        std::string text = failure(row.words);
        EXPECT_EQ(text.substr(0, row.message.size()), row.message) << "line: " << row.words[0] << " …";
    }
}

TEST(BadInput, more_memory_than_the_host_has_is_refused) {
    Offering offering = sample_offering();
    offering.host_memory_bytes = 8ull << 30;
    EXPECT_EQ(failure({"-m", "100T"}, offering),
              "cannot set up guest memory 'pc.ram': Cannot allocate memory (-m asks for 104857600 MiB, the host has "
              "8192 MiB)");
    EXPECT_TRUE(parse({"-m", "8G"}, offering).ok());
}

TEST(BadInput, the_prefix_of_second_lines_is_the_program_as_called) {
    std::vector<char const*> words = {"/opt/x/qemu-system-x86_64", "-serial", "foo"};
    auto parsed = parse_command_line(words, sample_offering());
    ASSERT_FALSE(parsed.ok());
    EXPECT_NE(parsed.error().message().find("\nqemu-system-x86_64: -serial foo: could not"), std::string::npos);
}
