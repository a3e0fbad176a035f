// Monitor: the human monitor on one character stream.
#pragma once
#include "monitor/line_editor.h"
#include "monitor/machine_control.h"
#include "ui/chardev/char_stream.h"
#include "vmm/base/log.h"

#include <string>
#include <string_view>

namespace vmm::monitor {

struct Command;

// Everything on the loop's thread. Owned by main; the stream, machine and log outlive it. Wiring: make it with a
// claimed stream (ui::CharBackends::claim); it greets when the stream opens, or on a mux when it first gets the focus.
class Monitor final : private ui::CharFrontend {
public:
    struct Needs {
        ui::CharStream& stream;
        MachineControl& machine;
        Log& log;            // `log` and `logfile` commands
        std::string version; // "0.1.0"
        std::string vm_name; // -name
        bool on_mux = false; // greets on focus instead of on opening
    };
    explicit Monitor(Needs needs);
    ~Monitor() override;
    Monitor(Monitor const&) = delete;
    Monitor& operator=(Monitor const&) = delete;

    // Runs one command line and returns what it prints; also the entry for scripts and tests.
    std::string execute(std::string_view line);

private:
    std::size_t receive(std::span<std::uint8_t const> bytes) override;
    void writable() override;
    void event(ui::CharEvent what) override;
    void greet();
    void print(std::string_view text); // "\n" becomes "\r\n"
    void flush();

    Needs needs_;
    LineEditor editor_;
    std::string pending_; // not yet taken by the stream
    std::size_t cpu_ = 0; // `cpu N`
    bool greeted_ = false;
    friend struct Context;
};

} // namespace vmm::monitor
