#include "ui/chardev/char_backends.h"

#include "ui/chardev/mux.h"
#include "ui/chardev/plain_streams.h"
#include "ui/chardev/pty_stream.h"
#include "ui/chardev/socket_stream.h"
#include "ui/chardev/udp_stream.h"
#include "vmm/base/timer_queue.h"

#include <cstdio>

namespace vmm::ui {

namespace {

struct Opened {
    std::unique_ptr<CharStream> stream;
    std::string filename; // as `info chardev` shows it
};

Result<Opened> open_socket(CharConfig const& config, CharBackends::Needs const& needs) {
    SocketStream::Waiting waiting;
    waiting.announce = [&](std::string const& address) {
        needs.log.message("", fmt::format("{}: info: waiting for connection on: {}", config.origin, address));
    };
    waiting.give_up = [&] { return needs.terminal.ending(); };
    waiting.retrying = [&log = needs.log, seconds = config.reconnect_seconds,
                        name = config.origin.empty() ? config.id : config.origin](std::string const& why) {
        log.warn("{}: {}; trying again every {} s", name, why, seconds);
    };
    auto socket = TRY(SocketStream::create(needs.loop, config, waiting));
    std::string name = socket->describe();
    return Opened{std::move(socket), name};
}

Result<Opened> open_backend(CharConfig const& config, CharBackends::Needs const& needs) {
    switch (config.kind) {
    case CharKind::console: return Opened{std::make_unique<NullStream>(), "vc"};
    case CharKind::null: return Opened{std::make_unique<NullStream>(), "null"};
    case CharKind::stdio: return Opened{open_stdio(needs.loop, needs.terminal, config), "stdio"};
    case CharKind::file: return Opened{TRY(open_file(needs.loop, config)), "file"};
    case CharKind::pipe: return Opened{TRY(open_pipe(needs.loop, config)), "pipe"};
    case CharKind::pty: {
        auto pty = TRY(PtyStream::create(needs.loop));
        // Scripts read the name of the terminal from this line.
        std::fprintf(stderr, "char device redirected to %s (label %s)\n", pty->name().c_str(), config.id.c_str());
        std::string name = "pty:" + pty->name();
        return Opened{std::move(pty), name};
    }
    case CharKind::udp: {
        auto udp = TRY(UdpStream::create(needs.loop, config));
        std::string name = udp->describe();
        return Opened{std::move(udp), name};
    }
    case CharKind::unix_:
    case CharKind::tcp: return open_socket(config, needs);
    }
    VMM_UNREACHABLE();
}

// The message of a failed backend, with the line QEMU adds about the serial port that is left without it.
Error explain(Config const& config, CharConfig const& backend, Error const& cause) {
    if (backend.origin.empty()) return cause;
    std::string text = fmt::format("{}: {}", backend.origin, cause.message());
    if (backend.id.starts_with("serial") && backend.origin.find(' ') != std::string::npos)
        text += fmt::format("\n{}: {}: could not connect serial device to character backend '{}'", config.program,
                            backend.origin, backend.origin.substr(backend.origin.find(' ') + 1));
    return Error(text, cause.errno_value());
}

} // namespace

struct CharBackends::Backend {
    std::unique_ptr<CharStream> stream; // null when it is inside `mux`
    std::unique_ptr<Mux> mux;
    bool claimed = false;
    std::string filename;
};

CharBackends::CharBackends(Terminal& terminal) : terminal_(terminal) {}

Result<std::unique_ptr<CharBackends>> CharBackends::create(Config const& config, Needs needs) {
    std::unique_ptr<CharBackends> backends(new CharBackends(needs.terminal));
    for (CharConfig const& item : config.chardevs) {
        auto opened = open_backend(item, needs);
        if (!opened) return explain(config, item, opened.error());
        auto backend = std::make_unique<Backend>();
        backend->filename = std::move(opened->filename);
        if (item.mux)
            backend->mux = std::make_unique<Mux>(needs.loop, std::move(opened->stream),
                                                 Mux::Options{.escape = config.escape_key,
                                                              .quit = needs.quit,
                                                              .commit_drives = needs.commit_drives,
                                                              .now = host_monotonic});
        else
            backend->stream = std::move(opened->stream);
        backends->backends_.emplace(item.id, std::move(backend));
    }
    return backends;
}

CharBackends::~CharBackends() {
    terminal_.set_on_continued({}); // the stream it would call goes now
    for (auto& [id, backend] : backends_) {
        if (backend->mux)
            backend->mux->drain();
        else if (backend->stream)
            backend->stream->drain();
    }
}

Result<CharStream*> CharBackends::claim(std::string const& id) {
    auto it = backends_.find(id);
    if (it == backends_.end()) return error("Chardev '{}' not found", id);
    Backend& backend = *it->second;
    if (backend.mux) return &backend.mux->add_channel();
    if (std::exchange(backend.claimed, true)) return error("Device '{}' is in use", id);
    return backend.stream.get();
}

std::string CharBackends::describe() const {
    std::string text;
    for (auto const& [id, backend] : backends_)
        text += fmt::format("{}: filename={}{}\n", id, backend->mux ? "mux:" : "", backend->filename);
    return text;
}

} // namespace vmm::ui
