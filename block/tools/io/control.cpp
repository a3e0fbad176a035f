// Everything that is not a request: opening, resizing, breakpoints, ending.
#include "block/core/debug_events.h"
#include "block/core/image_info.h"
#include "block/tools/common/pause.h"
#include "block/tools/io/command_options.h"
#include "block/tools/io/opening.h"
#include "block/tools/io/report.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace vmm::block {

int io_abort(IoSession&, std::span<std::string const>) { std::abort(); }

int io_quit(IoSession& session, std::span<std::string const>) {
    session.finish();
    return 0;
}

int io_close(IoSession& session, std::span<std::string const>) {
    Result<void> closed = session.close();
    return closed.ok() ? 0 : (session.tool().fail(closed.error()), -EIO);
}

int io_open(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "snCro:ki:t:d:U");
    if (!flags || flags->operands.size() > 1) return show_synopsis("open");
    if (session.image()) {
        session.tool().report("file open already, try 'help close'");
        return -EBUSY;
    }
    Result<OpenOptions> options = open_options_from(*flags);
    if (!options.ok()) return session.tool().fail(options.error()), -EINVAL;
    if (flags->has('s')) {
        Result<void> overlaid = put_snapshot_on_top(session, *options);
        if (!overlaid.ok()) return session.tool().fail(overlaid.error()), -EINVAL;
    }
    session.set_copy_on_read(flags->has('C'));
    return session.open(std::move(*options)) ? 0 : -EINVAL;
}

int io_reopen(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "c:o:rw");
    if (!flags || !flags->operands.empty()) return show_synopsis("reopen");
    if (std::ranges::count_if(flags->letters, [](char c) { return c == 'r' || c == 'w'; }) > 1)
        return session.tool().fail("Only one -r/-w option may be given"), -EINVAL;
    OpenOptions options = session.options();
    if (auto const* text = flags->value('c')) {
        Result<CacheMode> cache = parse_cache_mode(*text);
        if (!cache.ok()) return session.tool().fail(cache.error()), -EINVAL;
        options.cache = *cache;
    }
    if (auto const* text = flags->value('o')) {
        Result<OptionValues> values = OptionValues::parse(*text);
        if (!values.ok()) return session.tool().fail(values.error()), -EINVAL;
        for (auto const& [name, value] : values->all()) options.tree.set(name, value);
    }
    if (flags->has('r')) options.read_only = true;
    if (flags->has('w')) options.read_only = false;
    Result<void> closed = session.close();
    if (!closed.ok()) return session.tool().fail(closed.error()), -EIO;
    return session.open(std::move(options)) ? 0 : -EINVAL;
}

int io_flush(IoSession& session, std::span<std::string const>) {
    Result<void> result = session.tool().run(session.image()->flush());
    return result.ok() ? 0 : (session.tool().fail(result.error()), -EIO);
}

int io_truncate(IoSession& session, std::span<std::string const> words) {
    auto flags = parse_flags(words, "m:");
    if (!flags || flags->operands.size() != 1) return show_synopsis("truncate");
    ResizeRequest request{.shrink_ok = true};
    if (auto const* text = flags->value('m')) {
        Result<Preallocation> mode = parse_preallocation(*text);
        if (!mode.ok()) return session.tool().fail(mode.error()), -EINVAL;
        request.preallocation = *mode;
    }
    auto size = parse_amount(flags->operands[0]);
    if (!size) return -EINVAL;
    request.new_size_bytes = std::uint64_t(*size);
    Resizable* resizable = session.image()->capabilities().resizable;
    if (!resizable) return session.tool().fail("Image format driver does not support resize"), -ENOTSUP;
    Result<void> result = session.tool().run(resizable->resize(request));
    return result.ok() ? 0 : (session.tool().fail(result.error()), -EIO);
}

int io_length(IoSession& session, std::span<std::string const>) {
    std::printf("%s\n", io_size(double(session.image()->size_bytes())).c_str());
    return 0;
}

int io_info(IoSession& session, std::span<std::string const>) {
    Image& image = *session.image();
    FormatInfo info;
    if (InfoSource* source = image.capabilities().info) {
        Result<FormatInfo> found = session.tool().run(source->format_info());
        if (!found.ok()) return session.tool().fail(found.error()), -EIO;
        info = std::move(found).value();
    }
    std::uint64_t cluster = info.cluster_size_bytes.value_or(0), state_offset = 0;
    // Where the VM state lies: after what the tables of the disk cover.
    if (image.capabilities().snapshots && cluster) {
        Value const* wide = info.specific_data.find("extended-l2");
        std::uint64_t entry = wide && wide->scalar_text() == "true" ? 16 : 8, covered = cluster / entry * cluster;
        state_offset = div_ceil(image.size_bytes(), covered) * covered;
    }
    std::printf("format name: %s\ncluster size: %s\nvm state offset: %s\n", std::string(image.format_name()).c_str(),
                io_size(double(cluster)).c_str(), io_size(double(state_offset)).c_str());
    if (!info.specific_type.empty() && info.specific_data.is_dict())
        std::printf("Format specific information:\n%s", info.specific_data.text(1).c_str());
    return 0;
}

namespace {

std::optional<long> parse_long(std::string const& text) {
    char* end = nullptr;
    long value = std::strtol(text.c_str(), &end, 0);
    if (!text.empty() && !*end && value >= 0) return value;
    std::printf("%s is not a valid number\n", text.c_str());
    return std::nullopt;
}

int debug_failure(char const* what, int code) {
    std::printf("%s: %s\n", what, std::strerror(code));
    return -code;
}

} // namespace

int io_sigraise(IoSession&, std::span<std::string const> words) {
    auto signal = parse_long(words[1]);
    if (!signal) return -EINVAL;
    std::fflush(stdout); // a signal that kills would lose it
    ::raise(int(*signal));
    return 0;
}

int io_sleep(IoSession& session, std::span<std::string const> words) {
    auto milliseconds = parse_long(words[1]);
    if (!milliseconds) return -EINVAL;
    constexpr Nanoseconds per_millisecond = 1'000'000;
    session.tool().run(pause_for(session.tool().loop(), *milliseconds * per_millisecond));
    return 0;
}

int io_break(IoSession& session, std::span<std::string const> words) {
    DebugEvents* debug = session.image()->capabilities().debug;
    auto event = parse_blkdebug_event(words[1]);
    if (!debug) return debug_failure("Could not set breakpoint", ENOTSUP);
    if (!event) return debug_failure("Could not set breakpoint", ENOENT);
    Result<void> result = debug->set_breakpoint(*event, words[2]);
    return result.ok() ? 0 : debug_failure("Could not set breakpoint", result.error().errno_value());
}

int io_remove_break(IoSession& session, std::span<std::string const> words) {
    DebugEvents* debug = session.image()->capabilities().debug;
    Result<void> result = debug ? debug->remove_breakpoint(words[1]) : Result<void>(Error("", ENOTSUP));
    if (result.ok()) return 0;
    return debug_failure(fmt::format("Could not remove breakpoint {}", words[1]).c_str(), result.error().errno_value());
}

int io_resume(IoSession& session, std::span<std::string const> words) {
    DebugEvents* debug = session.image()->capabilities().debug;
    Result<void> result = debug ? debug->resume(words[1]) : Result<void>(Error("", ENOTSUP));
    return result.ok() ? 0 : debug_failure("Could not resume request", result.error().errno_value());
}

int io_wait_break(IoSession& session, std::span<std::string const> words) {
    DebugEvents* debug = session.image()->capabilities().debug;
    if (!debug) return debug_failure("Could not wait for a breakpoint", ENOTSUP);
    while (!debug->is_suspended(words[1])) session.tool().loop().run_once(-1);
    return 0;
}

} // namespace vmm::block
