#include "tests/support/fake_frontend.h"
#include "ui/chardev/fd_pump.h"
#include "ui/chardev/plain_streams.h"
#include "ui/chardev/pty_stream.h"
#include "ui/chardev/socket_stream.h"
#include "ui/chardev/udp_stream.h"
#include "vmm/base/timer_queue.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <termios.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

using namespace vmm;
using namespace vmm::ui;
using namespace vmm::test;

namespace {

struct Pipe {
    Pipe() {
        int ends[2];
        EXPECT_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
        reader = UniqueFd(ends[0]);
        writer = UniqueFd(ends[1]);
    }
    UniqueFd reader, writer;
};

std::string read_all(int fd) {
    std::string text;
    char buffer[8192];
    for (ssize_t n; (n = read(fd, buffer, sizeof buffer)) > 0;) text.append(buffer, std::size_t(n));
    return text;
}

// Runs the loop until `done`, or fails the test after ten seconds.
template <class F> void run_until(EventLoop& loop, F done) {
    Nanoseconds end = host_monotonic() + 10 * nanoseconds_per_second;
    while (!done()) {
        ASSERT_LT(host_monotonic(), end) << "waited in vain";
        loop.run_once(100'000'000);
    }
}

struct TempDir {
    TempDir() { path = mkdtemp(name); }
    ~TempDir() { [[maybe_unused]] int r = std::system(("rm -rf " + path).c_str()); }
    char name[32] = "/tmp/chardev-XXXXXX";
    std::string path;
};

int connect_unix(std::string const& path) {
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    EXPECT_EQ(connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    return fd;
}

} // namespace

TEST(FdPump, a_full_pipe_neither_blocks_nor_loses_bytes) {
    auto loop = EventLoop::create().value();
    Pipe pipe;
    int rooms = 0;
    FdPump pump(*loop, {.input = {}, .room = [&] { ++rooms; }, .end_of_input = {}, .broken = {}, .hold_input = {}});
    pump.attach({}, {std::move(pipe.writer), NoBlock::own_flag});
    std::string sent, got;
    for (int i = 0; sent.size() < 1'000'000; ++i) {
        std::string piece = std::to_string(i) + ",";
        std::size_t n = pump.write(bytes_of(piece));
        sent += piece.substr(0, n);
        if (n < piece.size()) break;
    }
    EXPECT_LT(sent.size(), 1'000'000u) << "the queue is bounded";
    EXPECT_GE(sent.size(), FdPump::queue_limit);
    run_until(*loop, [&] {
        got += read_all(pipe.reader.get());
        return got.size() == sent.size();
    });
    EXPECT_EQ(got, sent);
    EXPECT_EQ(rooms, 1) << "told once that there is room again";
}

TEST(FdPump, two_threads_may_write_while_the_loop_drains) {
    auto loop = EventLoop::create().value();
    Pipe pipe;
    FdPump pump(*loop, {});
    pump.attach({}, {std::move(pipe.writer), NoBlock::own_flag});
    constexpr std::size_t each = 300'000;
    auto writer = [&](char c) {
        for (std::size_t done = 0; done < each;) {
            std::string piece(std::min<std::size_t>(1000, each - done), c);
            std::size_t n = pump.write(bytes_of(piece));
            done += n;
            if (n == 0) std::this_thread::yield();
        }
    };
    std::thread a(writer, 'a'), b(writer, 'b');
    std::string got;
    run_until(*loop, [&] {
        got += read_all(pipe.reader.get());
        loop->run_once(0);
        return got.size() == 2 * each;
    });
    a.join();
    b.join();
    EXPECT_EQ(std::size_t(std::ranges::count(got, 'a')), each);
}

TEST(FdPump, input_the_front_end_does_not_take_is_kept) {
    auto loop = EventLoop::create().value();
    Pipe pipe;
    PumpStream stream(*loop, {std::move(pipe.reader), NoBlock::own_flag}, {});
    FakeFrontend front;
    front.capacity = 3;
    stream.set_frontend(&front);
    ASSERT_EQ(write(pipe.writer.get(), "abcdef", 6), 6);
    run_until(*loop, [&] { return front.received.size() == 3; });
    for (int i = 0; i < 3; ++i) loop->run_once(0);
    EXPECT_EQ(front.received, "abc");
    front.capacity = 10;
    stream.accept_input();
    run_until(*loop, [&] { return front.received == "abcdef"; });
}

TEST(PumpStream, the_end_of_input_is_not_the_end_of_output) {
    auto loop = EventLoop::create().value();
    Pipe in, out;
    PumpStream stream(*loop, {std::move(in.reader), NoBlock::own_flag}, {std::move(out.writer), NoBlock::own_flag});
    FakeFrontend front;
    stream.set_frontend(&front);
    in.writer.reset();
    for (int i = 0; i < 5; ++i) loop->run_once(0);
    EXPECT_EQ(stream.write(bytes_of("still here")), 10u);
    EXPECT_EQ(read_all(out.reader.get()), "still here");
}

TEST(PumpStream, a_reader_that_left_makes_output_vanish) {
    auto loop = EventLoop::create().value();
    signal(SIGPIPE, SIG_IGN);
    Pipe out;
    PumpStream stream(*loop, {}, {std::move(out.writer), NoBlock::own_flag});
    out.reader.reset();
    EXPECT_EQ(stream.write(bytes_of("abc")), 3u);
    loop->run_once(0);
    EXPECT_EQ(stream.write(bytes_of("def")), 3u);
}

TEST(FileBackend, writes_and_appends) {
    auto loop = EventLoop::create().value();
    TempDir dir;
    CharConfig config;
    config.kind = CharKind::file;
    config.path = dir.path + "/log";
    for (int round = 0; round < 2; ++round) {
        config.append = round == 1;
        auto file = open_file(*loop, config).value();
        EXPECT_EQ(file->write(bytes_of("line\n")), 5u);
    }
    std::stringstream text;
    text << std::ifstream(config.path).rdbuf();
    EXPECT_EQ(text.str(), "line\nline\n");
    config.path = dir.path + "/no/such";
    EXPECT_EQ(open_file(*loop, config).error().message(),
              "Could not open '" + config.path + "': No such file or directory");
}

TEST(SocketStream, a_unix_server_serves_one_client_after_the_other) {
    auto loop = EventLoop::create().value();
    TempDir dir;
    CharConfig config;
    config.kind = CharKind::unix_;
    config.path = dir.path + "/s";
    config.server = true;
    config.wait = false;
    auto stream = SocketStream::create(*loop, config, {}).value();
    FakeFrontend front;
    stream->set_frontend(&front);
    EXPECT_EQ(stream->write(bytes_of("nobody there")), 12u);
    for (int round = 0; round < 2; ++round) {
        front.events.clear();
        UniqueFd client(connect_unix(config.path));
        run_until(*loop, [&] { return front.saw(CharEvent::opened); });
        ASSERT_EQ(write(client.get(), "hi", 2), 2);
        run_until(*loop, [&] { return front.received.ends_with("hi"); });
        EXPECT_EQ(stream->write(bytes_of("ok")), 2u);
        char answer[8];
        EXPECT_EQ(read(client.get(), answer, sizeof answer), 2);
        client.reset();
        run_until(*loop, [&] { return front.saw(CharEvent::closed); });
    }
    stream.reset();
    EXPECT_NE(access(config.path.c_str(), F_OK), 0) << "its socket file is removed";
}

TEST(SocketStream, a_server_with_wait_returns_when_a_client_has_come_or_the_user_gives_up) {
    auto loop = EventLoop::create().value();
    TempDir dir;
    CharConfig config;
    config.kind = CharKind::unix_;
    config.path = dir.path + "/s";
    config.server = config.wait = true;
    std::thread client;
    std::string address;
    auto stream = SocketStream::create(*loop, config,
                                       {.announce =
                                            [&](std::string const& text) {
                                                address = text;
                                                client = std::thread([&] { close(connect_unix(config.path)); });
                                            },
                                        .give_up = {},
                                        .retrying = {}});
    client.join();
    EXPECT_TRUE(stream.ok());
    EXPECT_EQ(address, "disconnected:unix:" + config.path + ",server=on");
    config.path += "2";
    loop->post([] {});
    auto none = SocketStream::create(*loop, config, {.announce = {}, .give_up = [] { return true; }, .retrying = {}});
    EXPECT_FALSE(none.ok());
}

TEST(SocketStream, with_reconnect_a_client_comes_when_the_server_does_and_again_after_it_has_gone) {
    auto loop = EventLoop::create().value();
    TempDir dir;
    CharConfig config;
    config.kind = CharKind::unix_;
    config.path = dir.path + "/s";
    config.reconnect_seconds = 1;
    std::vector<std::string> told;
    auto stream = SocketStream::create(
                      *loop, config,
                      {.announce = {}, .give_up = {}, .retrying = [&](std::string const& why) { told.push_back(why); }})
                      .value();
    FakeFrontend front;
    stream->set_frontend(&front);
    EXPECT_EQ(told, std::vector{"Failed to connect to '" + config.path + "': No such file or directory"});
    CharConfig server = config;
    server.server = true;
    server.wait = false;
    server.reconnect_seconds = 0;
    for (int round = 0; round < 2; ++round) {
        front.events.clear();
        auto other = SocketStream::create(*loop, server, {}).value();
        FakeFrontend other_front;
        other->set_frontend(&other_front);
        run_until(*loop, [&] { return front.saw(CharEvent::opened) && other_front.saw(CharEvent::opened); });
        EXPECT_EQ(other->write(bytes_of("hi")), 2u);
        run_until(*loop, [&] { return front.received.ends_with("hi"); });
        EXPECT_EQ(stream->write(bytes_of("ok")), 2u);
        run_until(*loop, [&] { return other_front.received == "ok"; });
        other.reset();
        run_until(*loop, [&] { return front.saw(CharEvent::closed); });
        EXPECT_EQ(told.size(), std::size_t(round + 2)) << "each loss is told once";
    }
}

TEST(SocketStream, a_refused_connection_says_where) {
    auto loop = EventLoop::create().value();
    CharConfig config;
    config.kind = CharKind::tcp;
    config.host = "127.0.0.1";
    config.port = "1";
    EXPECT_EQ(SocketStream::create(*loop, config, {}).error().message(),
              "Failed to connect to '127.0.0.1:1': Connection refused");
}

TEST(PtyStream, output_before_anyone_came_vanishes_and_later_none_is_lost) {
    auto loop = EventLoop::create().value();
    auto pty = PtyStream::create(*loop).value();
    FakeFrontend front;
    pty->set_frontend(&front);
    EXPECT_EQ(pty->write(bytes_of("lost")), 4u);
    UniqueFd user(open(pty->name().c_str(), O_RDWR | O_NOCTTY | O_NONBLOCK | O_CLOEXEC));
    ASSERT_TRUE(bool(user));
    EXPECT_EQ(pty->write(bytes_of("first")), 5u) << "before the loop has noticed";
    run_until(*loop, [&] { return front.saw(CharEvent::opened); });
    EXPECT_EQ(pty->write(bytes_of(" second")), 7u);
    EXPECT_EQ(read_all(user.get()), "first second");
    ASSERT_EQ(write(user.get(), "typed", 5), 5);
    run_until(*loop, [&] { return front.received == "typed"; });
    user.reset();
    run_until(*loop, [&] { return front.saw(CharEvent::closed); });
}

TEST(UdpStream, datagrams_go_both_ways_and_what_nobody_hears_is_lost) {
    auto loop = EventLoop::create().value();
    CharConfig config;
    config.kind = CharKind::udp;
    config.host = config.local_host = "127.0.0.1";
    config.port = "9"; // discard
    auto ear = UdpStream::create(*loop, config).value();
    config.port = std::to_string(ear->bound_port());
    auto mouth = UdpStream::create(*loop, config).value();
    FakeFrontend heard;
    ear->set_frontend(&heard);
    std::string word = "hello";
    EXPECT_EQ(mouth->write(bytes_of(word)), 5u);
    run_until(*loop, [&] { return heard.received == "hello"; });
    EXPECT_EQ(mouth->describe(), "udp:127.0.0.1:" + config.port);
    ear.reset();
    for (int i = 0; i < 3; ++i) // the network says that nobody listens; that is not the guest's problem
        EXPECT_EQ(mouth->write(bytes_of(word)), 5u);
    loop->run_once(0);
}
