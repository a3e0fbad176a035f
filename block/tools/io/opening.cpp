#include "block/tools/io/opening.h"

#include "block/core/image.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <filesystem>

namespace vmm::block {

Result<OpenOptions> open_options_from(Flags const& flags) {
    OpenOptions options;
    if (!flags.operands.empty()) options.filename = flags.operands[0];
    options.read_only = flags.has('r');
    options.force_share = flags.has('U');
    options.discard = DiscardMode::unmap;
    if (flags.has('n')) options.cache = CacheMode::none;
    if (auto const* text = flags.value('t')) options.cache = TRY(parse_cache_mode(*text));
    if (auto const* text = flags.value('d')) {
        Result<DiscardMode> mode = parse_discard_mode(*text);
        if (!mode.ok()) return error("{}: {}", mode.error().message(), *text);
        options.discard = *mode;
    }
    if (flags.has('k')) options.aio = AioEngine::native;
    if (auto const* text = flags.value('i')) options.aio = TRY(parse_aio_engine(*text));
    for (auto const& [letter, text] : flags.values) {
        if (letter != 'o') continue;
        OptionValues values = TRY(OptionValues::parse(text));
        for (auto const& [name, value] : values.all()) options.tree.set(name, value);
    }
    return options;
}

Result<void> put_snapshot_on_top(IoSession& session, OpenOptions& options) {
    Format const* qcow2 = session.tool().context().formats.find("qcow2");
    if (!qcow2 || !qcow2->create) return error("A temporary snapshot needs the qcow2 format");
    OpenOptions below = options;
    below.read_only = true;
    below.quiet_probe = true;
    std::unique_ptr<Image> image = TRY(session.tool().run(open_image(session.tool().context(), below)));
    std::string format(image->format_name());
    std::uint64_t size = image->size_bytes();
    TRY(session.tool().run(close_image(std::move(image))));
    std::string path = (std::filesystem::temp_directory_path() / "vmm-io-XXXXXX").string();
    int fd = mkstemp(path.data());
    if (fd < 0) return error_from_errno(errno, "Could not create a temporary file '{}'", path);
    ::close(fd);
    session.own_temporary(path);
    CreateRequest request;
    request.filename = path;
    request.size_bytes = size;
    request.options.set("backing_file", std::filesystem::absolute(options.filename).string());
    request.options.set("backing_fmt", format);
    request.options.set("size", std::to_string(size));
    request.options.add_defaults(qcow2->create_options);
    TRY(session.tool().run(qcow2->create(session.tool().context(), std::move(request))));
    options.filename = path;
    options.format = "qcow2";
    options.read_only = false;
    options.tree = {};
    options.cache = CacheMode::unsafe;
    return {};
}

} // namespace vmm::block
