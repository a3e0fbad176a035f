// SocketStream: a ByteStream over a non-blocking socket on the EventLoop; also listening, connecting and time-outs.
#pragma once
#include "block/nbd/byte_stream.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/unique_fd.h"

#include <coroutine>
#include <functional>
#include <string>

namespace vmm::block::nbd {

class SocketStream final : public ByteStream {
public:
    // Makes `socket` (connected) non-blocking and owns it. `loop` must outlive the stream.
    SocketStream(EventLoop& loop, UniqueFd socket);
    ~SocketStream() override;

    Task<Result<std::size_t>> read_some(Bytes to) override;
    Task<Result<void>> write_all(ConstIoSpans from) override;
    void shut_down() override;
    void write_now(ConstBytes from) override;

    // For what lies on top (TLS): the descriptor, and waiting until it is readable or writable or shut down.
    int fd() const { return socket_.get(); }
    bool is_shut_down() const { return shut_down_; }
    struct Awaiter {
        SocketStream& stream;
        Ready what;
        bool await_ready() const noexcept { return stream.shut_down_; }
        void await_suspend(std::coroutine_handle<> waiting) { stream.wait(what, waiting); }
        void await_resume() const noexcept {}
    };
    Awaiter ready(Ready what) { return {*this, what}; }

private:
    void wait(Ready what, std::coroutine_handle<> waiting);
    void on_ready(Ready what);
    void set_watch(Ready what);

    EventLoop& loop_;
    UniqueFd socket_;
    std::coroutine_handle<> reader_, writer_;
    Ready watched_ = Ready::none; // kept while nobody waits, until it fires in vain: no system call per request
    bool shut_down_ = false;
};

// Where a server is: a unix socket's path, or a host and a port.
struct SocketAddress {
    std::string path; // not empty: a unix socket
    std::string host;
    std::string port;
    // "unix:/path" or "host:port", for messages.
    std::string text() const;
};

// "Failed to connect to '/path': No such file or directory". Name resolution blocks; connecting does not.
Task<Result<UniqueFd>> connect_socket(EventLoop& loop, SocketAddress address);
// A unix socket is unlinked first when it is a stale socket. TCP listens on the first address the name gives.
Result<UniqueFd> listen_socket(SocketAddress const& address, int backlog);

// Runs a callback once, some time from now, on the loop; cancelled by destruction.
class Deadline {
public:
    // Nothing happens when the host cannot give us a timer.
    Deadline(EventLoop& loop, Nanoseconds from_now, std::function<void()> callback);
    ~Deadline();
    Deadline(Deadline const&) = delete;
    Deadline& operator=(Deadline const&) = delete;

private:
    EventLoop& loop_;
    UniqueFd timer_;
};
// Resumes the task after `duration`.
Task<void> sleep_for(EventLoop& loop, Nanoseconds duration);

// Lets other events of the loop be handled before the task goes on.
struct YieldAwaiter {
    EventLoop& loop;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> waiting) {
        loop.post([waiting] { waiting.resume(); });
    }
    void await_resume() const noexcept {}
};

} // namespace vmm::block::nbd
