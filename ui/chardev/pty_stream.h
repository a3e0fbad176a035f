// PtyStream: a new pseudo-terminal whose other side the user opens with a terminal program.
#pragma once
#include "ui/chardev/char_stream.h"
#include "ui/chardev/fd_pump.h"

#include <atomic>
#include <memory>
#include <string>

namespace vmm::ui {

// Output while nobody has the other side open is swallowed. Loop thread, except what CharStream says is for any.
class PtyStream final : public CharStream {
public:
    static Result<std::unique_ptr<PtyStream>> create(EventLoop& loop);
    ~PtyStream() override;

    std::string const& name() const { return name_; } // "/dev/pts/3"

    std::size_t write(std::span<std::uint8_t const> bytes) override;
    void accept_input() override { pump_.resume_input(); }
    void set_frontend(CharFrontend* frontend) override;
    void send_break(bool) override {}
    void drain() override { pump_.drain(nanoseconds_per_second / 2); }

private:
    explicit PtyStream(EventLoop& loop);
    // Looks whether somebody has the other side open; from the poll timer and before writing.
    bool someone_there() const;
    void connect();
    void disconnect();

    EventLoop& loop_;
    UniqueFd master_, timer_; // the timer runs while disconnected: the kernel does not tell when the other side opens
    std::string name_;
    std::atomic<bool> connected_{false};
    CharFrontend* frontend_ = nullptr;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    FdPump pump_;
};

} // namespace vmm::ui
