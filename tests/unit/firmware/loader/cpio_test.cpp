#include "boot_fixture.h"
#include "elf_builder.h"
#include "firmware/loader/cpio.h"

#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

using namespace vmm;
using namespace vmm::firmware;

namespace {
std::string output_of(std::string const& command) {
    std::string text;
    FILE* p = ::popen(command.c_str(), "r");
    char buffer[256];
    while (p && std::fgets(buffer, sizeof buffer, p)) text += buffer;
    if (p) ::pclose(p);
    return text;
}
} // namespace

TEST(Cpio, a_tree_is_read_back_by_cpio_with_links_and_owners) {
    if (std::system("cpio --version >/dev/null 2>&1") != 0) GTEST_SKIP() << "no cpio program";
    BootFixture f(16);
    std::string const root = f.path("root");
    std::filesystem::create_directories(root + "/bin");
    std::ofstream(root + "/init") << "#!/bin/sh\n";
    std::filesystem::create_hard_link(root + "/init", root + "/bin/again");
    std::filesystem::create_symlink("../init", root + "/bin/sh");
    ASSERT_EQ(::mkfifo((root + "/pipe").c_str(), 0600), 0);
    auto packed = pack_directory(root + "/").value();
    EXPECT_EQ(packed.notes.size(), 2u); // console and null added
    EXPECT_EQ(packed.archive, pack_directory(root).value().archive);

    auto archive = f.file("a.cpio", packed.archive);
    EXPECT_EQ(output_of("cpio -t --quiet < " + archive),
              "bin\nbin/again\nbin/sh\ninit\npipe\ndev\ndev/console\ndev/null\n");
    std::string const out = f.path("out");
    output_of("mkdir " + out + "; cd " + out + "; cpio -i --quiet --no-preserve-owner < " + archive +
              " 'bin*' 'init' 'pipe' 2>&1");
    std::ifstream again(out + "/bin/again");
    EXPECT_EQ(std::string(std::istreambuf_iterator<char>(again), {}), "#!/bin/sh\n");
    EXPECT_EQ(std::filesystem::hard_link_count(out + "/init"), 2u);
    EXPECT_EQ(std::filesystem::read_symlink(out + "/bin/sh"), "../init");
    auto const list = output_of("cpio -tvn --quiet < " + archive);
    EXPECT_NE(list.find("crw-------   1 0        0          5,   1"), std::string::npos) << list;
}

TEST(Cpio, an_unreadable_or_missing_directory_is_named) {
    auto r = pack_directory("/no/such/dir");
    ASSERT_FALSE(r.ok());
    EXPECT_EQ(r.error().message(), "could not read initrd directory '/no/such/dir': No such file or directory");
}

TEST(Cpio, a_directory_given_as_initrd_reaches_the_guest) {
    BootFixture f(64);
    std::filesystem::create_directories(f.path("empty"));
    auto const kernel = f.file("k", elf(true, 0x1000000, Bytes(64, 0xf4), 0x1000000, 0x1000020));
    auto loader = KernelLoader::create({kernel, "", f.path("empty")}).value();
    EXPECT_EQ(loader.notes().size(), 3u); // two nodes added, no /init
    auto const entry = loader.load(f.space, f.platform).value();
    auto const module = f.read<std::uint64_t>(entry.gpr[boot_rbx] + 16);
    auto const start = f.read<std::uint64_t>(module);
    EXPECT_EQ(f.string(start).substr(0, 6), "070701");
    EXPECT_EQ(f.read<std::uint64_t>(module + 8), pack_directory(f.path("empty")).value().archive.size());
}
