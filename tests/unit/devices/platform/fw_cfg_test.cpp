#include "devices/platform/fw_cfg.h"
#include "tests/support/fake_dma.h"
#include "vmm/base/endian.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;

namespace {
struct Config : testing::Test {
    test::FakeDma memory;
    Log log{"test"};
    FwCfg cfg{{memory, log}};

    void select(unsigned key) { cfg.ports().write(0, 2, key); }
    std::string read(unsigned count) {
        std::string text;
        while (count--) text.push_back(char(cfg.ports().read(1, 1)));
        return text;
    }
    // Runs a transfer described at address 0x100; its control word afterwards.
    std::uint32_t transfer(std::uint32_t control, std::uint32_t length, std::uint64_t address) {
        be32 c = control, l = length;
        be64 a = address;
        std::memcpy(&memory.bytes[0x100], &c, 4);
        std::memcpy(&memory.bytes[0x104], &l, 4);
        std::memcpy(&memory.bytes[0x108], &a, 8);
        cfg.dma().write(0, 4, 0);
        cfg.dma().write(4, 4, byte_swap(std::uint32_t(0x100)));
        std::memcpy(&c, &memory.bytes[0x100], 4);
        return c;
    }
    std::string text_at(std::size_t a, std::size_t n) {
        return {memory.bytes.begin() + std::ptrdiff_t(a), memory.bytes.begin() + std::ptrdiff_t(a + n)};
    }
};
std::vector<std::uint8_t> bytes(std::string_view text) { return {text.begin(), text.end()}; }
} // namespace

TEST_F(Config, signature_and_features_are_found_where_guests_look) {
    select(0);
    EXPECT_EQ(read(4), "QEMU");
    select(1);
    EXPECT_EQ(read(4), std::string("\3\0\0\0", 4));
    EXPECT_EQ(byte_swap(std::uint32_t(cfg.dma().read(0, 4))), 0x51454d55u);
    EXPECT_EQ(byte_swap(std::uint32_t(cfg.dma().read(4, 4))), 0x20434647u);
}

TEST_F(Config, directory_lists_files_by_name_and_their_keys_read_them) {
    ASSERT_TRUE(cfg.add_file("opt/b", bytes("second")).ok());
    ASSERT_TRUE(cfg.add_file("etc/a", bytes("1st")).ok());
    select(0x19);
    EXPECT_EQ(read(4), std::string("\0\0\0\2", 4));
    std::string first = read(64), second = read(64);
    EXPECT_EQ(first.substr(0, 13), std::string("\0\0\0\3\0\x20\0\0etc/a", 13));
    EXPECT_EQ(second.substr(0, 13), std::string("\0\0\0\6\0\x21\0\0opt/b", 13));
    select(0x21);
    EXPECT_EQ(read(8), std::string("second\0\0", 8));
}

TEST_F(Config, dma_selects_reads_skips_and_zero_fills) {
    ASSERT_TRUE(cfg.add_file("etc/a", bytes("hello world")).ok());
    memory.bytes[0x205] = 0xff;
    EXPECT_EQ(transfer(0x20 << 16 | 8 | 2, 5, 0x200), 0u);
    EXPECT_EQ(text_at(0x200, 6), "hello\xff");
    EXPECT_EQ(transfer(4, 1, 0), 0u);
    EXPECT_EQ(transfer(2, 7, 0x300), 0u);
    EXPECT_EQ(text_at(0x300, 7), std::string("world\0\0", 7));
}

TEST_F(Config, only_writable_files_are_written_and_never_past_their_end) {
    std::string seen;
    ASSERT_TRUE(cfg.add_file("a", bytes("fixed")).ok());
    ASSERT_TRUE(
        cfg.add_writable_file("b", bytes("1234"), [&](auto const& d) { seen.assign(d.begin(), d.end()); }).ok());
    std::memcpy(&memory.bytes[0x200], "WXYZ!", 5);
    EXPECT_EQ(transfer(0x20 << 16 | 8 | 16, 4, 0x200), 1u);
    EXPECT_EQ(transfer(0x21 << 16 | 8 | 16, 5, 0x200), 1u);
    EXPECT_EQ(transfer(0x21 << 16 | 8 | 16, 2, 0x200), 0u);
    EXPECT_EQ(seen, "WX34");
    EXPECT_EQ(*cfg.file("a"), bytes("fixed"));
}

TEST_F(Config, dma_outside_memory_reports_an_error_and_writes_nothing) {
    EXPECT_EQ(transfer(8 | 2, 4, 0xfffffffffffffff0), 1u);
    EXPECT_EQ(transfer(8 | 2, 0xffffffff, 0x200), 1u);
    cfg.dma().write(0, 4, 0xffffffff);
    cfg.dma().write(4, 4, 0xffffffff);
}

TEST_F(Config, bad_file_names_are_refused) {
    EXPECT_FALSE(cfg.add_file("", {}).ok());
    EXPECT_FALSE(cfg.add_file(std::string(56, 'x'), {}).ok());
    EXPECT_TRUE(cfg.add_file("x", {}).ok());
    EXPECT_FALSE(cfg.add_file("x", {}).ok());
}

TEST_F(Config, a_loaded_state_continues_in_the_middle_of_an_item) {
    ASSERT_TRUE(cfg.add_writable_file("b", bytes("1234"), {}).ok());
    select(0x20);
    read(2);
    StateWriter writer;
    cfg.save(writer);
    cfg.reset();
    StateReader reader(writer.bytes());
    ASSERT_TRUE(cfg.load(reader).ok());
    EXPECT_EQ(read(2), "34");
}
