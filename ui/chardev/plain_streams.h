// The backends without a life of their own: nothing, a file, a pipe, the terminal.
#pragma once
#include "ui/chardev/char_stream.h"
#include "ui/chardev/fd_pump.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/result.h"
#include "vmm/options/char_config.h"

#include <functional>
#include <memory>

namespace vmm::ui {

class Terminal;

// Swallows output, gives no input.
class NullStream final : public CharStream {
public:
    std::size_t write(std::span<std::uint8_t const> bytes) override { return bytes.size(); }
    void accept_input() override {}
    void set_frontend(CharFrontend*) override {}
    void send_break(bool) override {}
    void drain() override {}
};

// One pump, always open. Loop thread, except what CharStream says is for any.
class PumpStream final : public CharStream {
public:
    struct Hooks {
        std::function<void(std::span<std::uint8_t const>)> on_output; // sees what was taken; the writer's thread
        std::function<bool()> hold_input;
    };
    PumpStream(EventLoop& loop, PumpEnd in, PumpEnd out, Hooks hooks = {});
    ~PumpStream() override;

    std::size_t write(std::span<std::uint8_t const> bytes) override;
    void accept_input() override { pump_.resume_input(); }
    void set_frontend(CharFrontend* frontend) override;
    void send_break(bool) override {}
    void drain() override;

private:
    EventLoop& loop_;
    Hooks hooks_;
    CharFrontend* frontend_ = nullptr;
    bool told_ = false; // the front end has heard that the stream is open: input may come
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
    FdPump pump_;
};

// "file": output only.
Result<std::unique_ptr<CharStream>> open_file(EventLoop& loop, CharConfig const& config);
// "pipe": PATH.in and PATH.out if both are there, else PATH for both ways.
Result<std::unique_ptr<CharStream>> open_pipe(EventLoop& loop, CharConfig const& config);
// "stdio", which also takes the terminal.
std::unique_ptr<CharStream> open_stdio(EventLoop& loop, Terminal& terminal, CharConfig const& config);

} // namespace vmm::ui
