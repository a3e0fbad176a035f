// Monitor: the human monitor on one character stream.
#pragma once
#include "monitor/command.h"
#include "monitor/line_editor.h"
#include "monitor/machine_control.h"
#include "ui/chardev/char_stream.h"
#include "vmm/base/log.h"

#include <string>
#include <string_view>

namespace vmm::monitor {

// Everything on the loop's thread. Owned by main; the stream, machine and log outlive it. Wiring: make it with a
// claimed stream (ui::CharBackends::claim); it greets when the stream opens, on a mux when it first gets the focus.
class Monitor final : private ui::CharFrontend {
public:
    struct Needs {
        ui::CharStream& stream;
        MachineControl& machine;
        Log& log;            // `log` and `logfile` work on it
        std::string version; // "0.1.0"
        std::string vm_name; // -name
    };
    explicit Monitor(Needs needs);
    ~Monitor() override;
    Monitor(Monitor const&) = delete;
    Monitor& operator=(Monitor const&) = delete;

    // Runs one command line and returns what it prints, lines ending in "\n". Also the entry for scripts and tests.
    std::string execute(std::string_view line);

    // Output that may wait for a slow reader; while more than this waits, no further command is read.
    static constexpr std::size_t output_limit = 64 * 1024;

private:
    std::size_t receive(std::span<std::uint8_t const> bytes) override;
    void writable() override;
    void event(ui::CharEvent what) override;
    void greet();
    std::vector<std::string> complete(std::string_view text) const;
    void print(std::string_view text); // "\n" becomes "\r\n"
    void send(std::string_view text);

    Needs needs_;
    std::string pending_; // not yet taken by the stream
    std::size_t cpu_ = 0; // `cpu N`
    Format format_;
    bool greeted_ = false;
    LineEditor editor_;
};

} // namespace vmm::monitor
