// What peers that do not keep to the protocol can do to us: nothing but lose their connection.
#include "tests/support/block_bench.h"
#include "tests/support/nbd_feeds.h"

#include <gtest/gtest.h>

#include <random>

using namespace vmm;
using namespace vmm::block;
using namespace vmm::block::nbd;

namespace {

std::unique_ptr<Image> make_image(BlockBench& bench) {
    OpenOptions options;
    options.format = "null-co";
    options.tree.set("size", "1048576");
    options.tree.set("read-zeroes", "on");
    return bench.run(open_image(bench.context, options)).value();
}

void append_request(std::vector<std::uint8_t>& to, Command command, std::uint64_t offset, std::uint32_t length,
                    std::uint16_t flags = 0) {
    append_wire(to, Request{request_magic, flags, std::uint16_t(command), 77u, offset, length});
}

// Error of the first simple reply after the handshake, or nullopt.
std::optional<std::uint32_t> first_error(std::vector<std::uint8_t> const& answer) {
    for (std::size_t i = 0; i + sizeof(SimpleReply) <= answer.size(); ++i) {
        SimpleReply reply;
        std::memcpy(&reply, answer.data() + i, sizeof reply);
        if (reply.magic == simple_reply_magic) return reply.error.load();
    }
    return std::nullopt;
}

} // namespace

TEST(NbdHostile, requests_out_of_bounds_get_an_error_each) {
    BlockBench bench(false);
    auto image = make_image(bench);
    struct Case {
        Command command;
        std::uint64_t offset;
        std::uint32_t length;
        std::uint16_t flags;
        std::uint32_t error;
    };
    for (Case one : {Case{Command::read, 1 << 20, 1, 0, 22}, Case{Command::read, UINT64_MAX, 4096, 0, 22},
                     Case{Command::read, 0, UINT32_MAX, 0, 22}, Case{Command::write_zeroes, 1 << 20, 512, 0, 28},
                     Case{Command::trim, UINT64_MAX - 10, 100, 0, 22}, Case{Command(99), 0, 0, 0, 22},
                     Case{Command::read, 0, 512, 0x8000, 22}, Case{Command::block_status, 0, 512, 0, 22},
                     Case{Command::read, 0, 512, 0, 0}, Case{Command::trim, 0, 4096, 0, 0}}) {
        std::vector<std::uint8_t> bytes;
        append_request(bytes, one.command, one.offset, one.length, one.flags);
        auto error = first_error(feed_server(*bench.loop, *image, FeedFrom::requests, bytes));
        ASSERT_TRUE(error.has_value()) << unsigned(one.command);
        EXPECT_EQ(*error, one.error) << unsigned(one.command) << " at " << one.offset;
    }
    bench.run(close_image(std::move(image))).value();
}

TEST(NbdHostile, a_write_longer_than_allowed_ends_the_connection) {
    BlockBench bench(false);
    auto image = make_image(bench);
    std::vector<std::uint8_t> bytes;
    append_request(bytes, Command::write, 0, UINT32_MAX);
    EXPECT_FALSE(first_error(feed_server(*bench.loop, *image, FeedFrom::requests, bytes)).has_value());
    bench.run(close_image(std::move(image))).value();
}

TEST(NbdHostile, long_options_are_answered_or_end_the_connection) {
    BlockBench bench(false);
    auto image = make_image(bench);
    std::vector<std::uint8_t> long_name(max_option_bytes + 1), bytes;
    append_option(bytes, Option::list, long_name);
    append_option(bytes, Option::abort, {});
    std::vector<std::uint8_t> answer = feed_server(*bench.loop, *image, FeedFrom::options, bytes);
    OptionReplyHeader reply;
    ASSERT_GE(answer.size(), sizeof(ServerHello) + sizeof reply);
    std::memcpy(&reply, answer.data() + sizeof(ServerHello), sizeof reply);
    EXPECT_EQ(OptionReply(reply.reply.load()), OptionReply::err_too_big);
    bytes.clear();
    append_wire(bytes, OptionHeader{.magic = option_magic, .option = 3u, .length = UINT32_MAX});
    EXPECT_EQ(feed_server(*bench.loop, *image, FeedFrom::options, bytes).size(), sizeof(ServerHello));
    bench.run(close_image(std::move(image))).value();
}

TEST(NbdHostile, a_client_that_says_nothing_is_dropped_in_time) {
    BlockBench bench(false);
    auto image = make_image(bench);
    ServerSettings settings;
    settings.handshake_timeout = 20'000'000;
    Server server(*bench.loop, settings);
    server.add_export(Export::create(*image, {}).value());
    auto [ours, theirs] = socket_pair();
    server.accept(std::move(theirs));
    EXPECT_EQ(server.clients(), 1u);
    while (server.clients() > 0) bench.loop->run_once(-1);
    run_blocking(*bench.loop, server.stop());
    bench.run(close_image(std::move(image))).value();
}

TEST(NbdHostile, random_bytes_never_harm_the_server) {
    BlockBench bench(false);
    auto image = make_image(bench);
    std::mt19937 random(7);
    for (int round = 0; round < 2000; ++round) {
        std::vector<std::uint8_t> bytes;
        auto from = FeedFrom(round % 4);
        for (int i = 0; i < 4; ++i) {
            if (from >= FeedFrom::requests)
                append_request(bytes, Command(random() % 9), random() % (1 << 21), random() % (1 << 17), random() % 32);
            else
                append_wire(bytes,
                            OptionHeader{.magic = option_magic, .option = random() % 12, .length = random() % 40});
            for (unsigned n = random() % 64; n > 0; --n) bytes.push_back(std::uint8_t(random() % 4));
        }
        if (random() % 4 == 0 && !bytes.empty()) bytes[random() % bytes.size()] = std::uint8_t(random());
        feed_server(*bench.loop, *image, from, bytes);
    }
    bench.run(close_image(std::move(image))).value();
}

TEST(NbdHostile, random_replies_never_harm_the_client) {
    BlockBench bench(false);
    std::mt19937 random(8);
    for (int round = 0; round < 2000; ++round) {
        std::vector<std::uint8_t> bytes;
        auto from = FeedFrom(round % 4);
        for (int i = 0; i < 4; ++i) {
            std::uint64_t cookie = std::uint64_t(1 + i) << 32 | (random() % 8 == 0);
            if (from == FeedFrom::structured_requests)
                append_wire(bytes, StructuredReply{structured_reply_magic, std::uint16_t(random() % 2),
                                                   std::uint16_t(random() % 6), cookie, random() % 5000});
            else
                append_wire(bytes, SimpleReply{simple_reply_magic, random() % 3, cookie});
            for (unsigned n = random() % 5000; n > 0; --n) bytes.push_back(std::uint8_t(random() % 3));
        }
        Result<void> result = feed_client(*bench.loop, from, bytes);
        EXPECT_TRUE(from >= FeedFrom::requests || !result.ok());
    }
}
