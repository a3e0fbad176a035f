#include "block/core/common_options.h"

#include <cerrno>

namespace vmm::block {

namespace {

// "cache.direct" (O_DIRECT) and "cache.no-flush" on top of the mode that holds without them.
Result<void> take_cache(OpenOptions& options, std::string const& level) {
    std::string const direct_name = level + "cache.direct", flush_name = level + "cache.no-flush";
    bool direct = TRY(options.tree.boolean(direct_name, bypasses_page_cache(options.cache)));
    bool no_flush = TRY(options.tree.boolean(flush_name, options.cache == CacheMode::unsafe));
    bool given = options.tree.has(direct_name) || options.tree.has(flush_name);
    options.tree.erase(direct_name);
    options.tree.erase(flush_name);
    if (!given) return {};
    if (no_flush && direct) return error("'cache.direct' and 'cache.no-flush' cannot both be on");
    bool through = writes_through(options.cache);
    if (no_flush)
        options.cache = CacheMode::unsafe;
    else if (direct)
        options.cache = through ? CacheMode::directsync : CacheMode::none;
    else
        options.cache = through ? CacheMode::writethrough : CacheMode::writeback;
    return {};
}

std::optional<std::string> take(OpenOptions& options, std::string const& name) {
    std::optional<std::string> value = options.tree.text(name);
    options.tree.erase(name);
    return value;
}

Result<void> take_flag(OpenOptions& options, std::string const& name, bool& field) {
    if (auto text = take(options, name)) field = TRY(parse_bool(*text, name));
    return {};
}

Result<LockMode> parse_lock_mode(std::string_view text) {
    if (text == "auto") return LockMode::automatic;
    if (text == "on") return LockMode::on;
    if (text == "off") return LockMode::off;
    return error("invalid parameter value: {}", text);
}

} // namespace

Result<void> take_common_options(OpenOptions& options) {
    bool const wants_write = !options.read_only;
    for (std::string const level : {"", "file."}) {
        TRY(take_flag(options, level + "read-only", options.read_only));
        TRY(take_flag(options, level + "auto-read-only", options.auto_read_only));
        TRY(take_flag(options, level + "force-share", options.force_share));
        TRY(take_flag(options, level + "share-rw", options.share_rw));
        TRY(take_cache(options, level));
        if (auto text = take(options, level + "locking")) options.locking = TRY(parse_lock_mode(*text));
        if (auto text = take(options, level + "discard")) options.discard = TRY(parse_discard_mode(*text));
        if (auto text = take(options, level + "aio")) options.aio = TRY(parse_aio_engine(*text));
        if (auto text = take(options, level + "detect-zeroes")) options.detect_zeroes = TRY(parse_detect_zeroes(*text));
        options.tree.erase(level + "node-name"); // names are for a graph of nodes that changes; ours does not
    }
    if (wants_write && options.read_only && !options.auto_read_only) return Error("Block node is read-only", EACCES);
    if (options.detect_zeroes == DetectZeroes::unmap && options.discard == DiscardMode::ignore)
        return error("setting detect-zeroes to unmap is not allowed without setting discard operation to unmap");
    return {};
}

} // namespace vmm::block
