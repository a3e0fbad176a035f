// Server and client driver in one process over a unix socket.
#include "block/core/capabilities.h"
#include "block/nbd/server.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <random>

using namespace vmm;
using namespace vmm::block;
using namespace vmm::block::nbd;

namespace {

constexpr std::uint64_t disk_bytes = 4 << 20;

class NbdPair : public testing::Test {
protected:
    void start(ServerSettings settings = {}, ExportSettings offered = {}) {
        auto file = bench.run(create_file(bench.context, bench.path("disk"), disk_bytes));
        ASSERT_TRUE(file.ok());
        file.value().reset();
        OpenOptions options;
        options.filename = bench.path("disk");
        options.format = "raw";
        image = bench.run(open_image(bench.context, options)).value();
        server = std::make_unique<Server>(*bench.loop, std::move(settings));
        server->add_export(Export::create(*image, std::move(offered)).value());
        SocketAddress address;
        address.path = bench.path("socket");
        server->listen(listen_socket(address, 16).value());
    }
    Result<std::unique_ptr<Image>> connect(std::string const& export_name = "", bool read_only = false,
                                           std::string const& delay = "0") {
        OpenOptions options;
        options.filename = "nbd+unix:///" + export_name + "?socket=" + bench.path("socket");
        options.format = "raw";
        options.read_only = read_only;
        options.discard = DiscardMode::unmap;
        options.tree.set("file.reconnect-delay", delay);
        return bench.run(open_image(bench.context, options));
    }
    void stop_server() {
        if (server) run_blocking(*bench.loop, server->stop());
        server.reset();
        if (image) bench.run(close_image(std::move(image))).value();
    }
    void TearDown() override { stop_server(); }

    BlockBench bench;
    std::unique_ptr<Image> image;
    std::unique_ptr<Server> server;
};

Task<Result<void>> write_number(BlockDevice& device, std::uint64_t index) {
    std::vector<std::uint8_t> data(4096, std::uint8_t(index));
    ConstBytes bytes(data);
    Result<void> result = co_await write_bytes(device, index * 4096, bytes);
    co_return result;
}

} // namespace

TEST(NbdSocket, ports_beyond_65535_are_refused) {
    for (char const* port : {"65536", "99999", "99999999999999999999999"}) {
        SocketAddress address;
        address.host = "127.0.0.1";
        address.port = port;
        Result<UniqueFd> listening = listen_socket(address, 1);
        ASSERT_FALSE(listening.ok());
        EXPECT_NE(listening.error().message().find("is beyond 65535"), std::string::npos)
            << listening.error().message();
    }
}

TEST_F(NbdPair, random_requests_agree_with_a_model) {
    start();
    auto device = connect().value();
    std::vector<std::uint8_t> model(disk_bytes), data;
    std::mt19937 random(5);
    for (int i = 0; i < 1500; ++i) {
        std::uint64_t length = 1 + random() % (i % 10 ? 20000 : 600000), offset = random() % (disk_bytes - length);
        data.assign(length, std::uint8_t(random()));
        switch (random() % 4) {
        case 0:
            ASSERT_TRUE(bench.run(write_bytes(*device, offset, ConstBytes(data), Durability(random() % 2))).ok());
            std::memcpy(&model[offset], data.data(), length);
            break;
        case 1:
            ASSERT_TRUE(
                bench.run(write_zeroes(*device, offset, length, ZeroFlags{.may_unmap = bool(random() % 2)})).ok());
            std::memset(&model[offset], 0, length);
            break;
        default:
            ASSERT_TRUE(bench.run(read_bytes(*device, offset, Bytes(data))).ok());
            ASSERT_EQ(std::memcmp(data.data(), &model[offset], length), 0) << i;
        }
    }
    ASSERT_TRUE(bench.run(device->flush()).ok());
    bench.run(close_image(std::move(device))).value();
}

TEST_F(NbdPair, many_requests_in_flight_all_arrive) {
    start();
    auto device = connect().value();
    std::vector<Task<Result<void>>> tasks;
    for (std::uint64_t i = 0; i < 500; ++i) tasks.push_back(write_number(*device, i));
    ASSERT_TRUE(bench.run(when_all(std::move(tasks))).ok());
    std::vector<std::uint8_t> data(4096);
    for (std::uint64_t i = 0; i < 500; ++i) {
        ASSERT_TRUE(bench.run(read_bytes(*device, i * 4096, Bytes(data))).ok());
        ASSERT_EQ(data[17], std::uint8_t(i));
    }
    bench.run(close_image(std::move(device))).value();
}

TEST_F(NbdPair, holes_are_told_to_the_client) {
    start();
    auto device = connect().value();
    std::vector<std::uint8_t> data(65536, 1);
    ASSERT_TRUE(bench.run(write_bytes(*device, 1 << 20, ConstBytes(data))).ok());
    constexpr std::uint64_t first_block = 4096; // that one every new raw file has
    auto hole = bench.run(device->capabilities().allocation->status(first_block, disk_bytes - first_block));
    ASSERT_TRUE(hole.ok());
    EXPECT_TRUE(hole->zero);
    EXPECT_EQ(hole->length, (1u << 20) - first_block);
    auto used = bench.run(device->capabilities().allocation->status(1 << 20, 65536));
    ASSERT_TRUE(used.ok());
    EXPECT_FALSE(used->zero);
    bench.run(close_image(std::move(device))).value();
}

TEST_F(NbdPair, exports_have_names_and_may_be_read_only) {
    ExportSettings offered;
    offered.name = "disk";
    offered.read_only = true;
    start({}, offered);
    auto wrong = connect("other", true);
    ASSERT_FALSE(wrong.ok());
    EXPECT_NE(wrong.error().message().find("Requested export not available"), std::string::npos);
    EXPECT_FALSE(connect("disk").ok());
    auto device = connect("disk", true);
    ASSERT_TRUE(device.ok());
    EXPECT_EQ(device.value()->size_bytes(), disk_bytes);
    bench.run(close_image(std::move(device).value())).value();
}

TEST_F(NbdPair, a_lost_server_fails_requests_and_a_new_one_is_found) {
    start();
    auto plain = connect().value();
    auto patient = connect("", false, "30").value();
    run_blocking(*bench.loop, server->stop());
    server.reset();
    std::vector<std::uint8_t> data(512);
    EXPECT_FALSE(bench.run(read_bytes(*plain, 0, Bytes(data))).ok());
    server = std::make_unique<Server>(*bench.loop, ServerSettings{});
    server->add_export(Export::create(*image, {}).value());
    SocketAddress address;
    address.path = bench.path("socket");
    server->listen(listen_socket(address, 16).value());
    EXPECT_TRUE(bench.run(read_bytes(*patient, 0, Bytes(data))).ok());
    bench.run(close_image(std::move(patient))).value();
    EXPECT_FALSE(bench.run(close_image(std::move(plain))).ok()); // its last flush cannot be done
}

TEST_F(NbdPair, a_server_full_of_clients_lets_the_next_wait) {
    ServerSettings settings;
    settings.max_clients = 1;
    bool last_left = false;
    settings.on_last_client_left = [&] { last_left = true; };
    start(settings);
    auto first = connect().value();
    EXPECT_EQ(server->clients(), 1u);
    EXPECT_FALSE(last_left);
    bench.run(close_image(std::move(first))).value();
    first.reset();
    while (!last_left) bench.loop->run_once(-1);
    auto second = connect();
    ASSERT_TRUE(second.ok());
    bench.run(close_image(std::move(second).value())).value();
    stop_server(); // while last_left lives
}
