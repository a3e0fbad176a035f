// CharBackends: opens every character backend of a Config and hands out streams to them by id.
#pragma once
#include "ui/chardev/char_stream.h"
#include "ui/chardev/terminal.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"
#include "vmm/base/result.h"
#include "vmm/options/config.h"

#include <functional>
#include <map>
#include <memory>
#include <string>

namespace vmm::ui {

// How main() wires the console (all on the loop's thread, before vCPUs run):
//   auto terminal = Terminal::create(*loop, {.on_terminate = …log the text, stop the loop…});
//   auto backends = CharBackends::create(config, {*loop, **terminal, log, …});
//   for each id in config.serials:   link = DeviceLink(stream for id, machine.device_lock());   uart gets link as its
//                                    CharSink; link.attach(uart)
//   for each monitor:                Monitor(stream for its id, machine control, …)
//   config.debugcon likewise, as output only.
// Serial ports are claimed before monitors: the first front end of a mux has the focus at the start.
// Destroyed after the links and monitors, before the Terminal; the destructor drains what was written.
class CharBackends {
public:
    struct Needs {
        EventLoop& loop;
        Terminal& terminal;
        Log& log;
        std::function<void()> quit;                 // Ctrl-a x, after "QEMU: Terminated" was printed
        std::function<std::size_t()> commit_drives; // Ctrl-a s; returns how many disks were written back
    };
    // Opens everything in config.chardevs, in order. Waits for the first client of a server with wait=on. The error
    // starts with the option that asked for the backend.
    static Result<std::unique_ptr<CharBackends>> create(Config const& config, Needs needs);
    ~CharBackends();

    // A stream to backend `id` for one front end: the backend itself, or a new channel of its mux. The reference lives
    // as long as this object. Errors: no such id; a backend without mux that is already in use.
    Result<CharStream*> claim(std::string const& id);
    // `info chardev`: one "id: filename=…" line each.
    std::string describe() const;

private:
    explicit CharBackends(Terminal& terminal);
    struct Backend;

    Terminal& terminal_;
    std::map<std::string, std::unique_ptr<Backend>> backends_;
};

} // namespace vmm::ui
