// vmm-img map
#include "block/core/chain.h"
#include "block/core/value.h"
#include "block/tools/img/command.h"

#include <algorithm>
#include <cstdio>

namespace vmm::block {

namespace {

struct Entry {
    std::uint64_t start = 0, length = 0;
    unsigned depth = 0;
    bool present = false, zero = false, data = false;
    std::optional<std::uint64_t> offset;
    std::string file;

    // Whether `next` only continues this one.
    bool continues(Entry const& next) const {
        if (depth != next.depth || present != next.present || zero != next.zero || data != next.data ||
            offset.has_value() != next.offset.has_value() || file != next.file)
            return false;
        return !offset || *offset + length == *next.offset;
    }
};

class Printer {
public:
    explicit Printer(bool json) : json_(json) {
        if (json_)
            std::printf("[");
        else
            std::printf("%-16s%-16s%-16s%s\n", "Offset", "Length", "Mapped to", "File");
    }
    Result<void> add(Entry const& entry) {
        if (json_) {
            std::string offset = entry.offset ? fmt::format(", \"offset\": {}", *entry.offset) : "";
            std::printf("%s",
                        fmt::format("{}{{ \"start\": {}, \"length\": {}, \"depth\": {}, \"present\": {}, \"zero\": "
                                    "{}, \"data\": {}{}}}",
                                    first_ ? "" : ",\n", entry.start, entry.length, entry.depth, entry.present,
                                    entry.zero, entry.data, offset)
                            .c_str());
        } else if (entry.data && !entry.zero) {
            if (!entry.offset) return error("File contains external, encrypted or compressed clusters.");
            std::printf("%s", fmt::format("{:<16}{:<16}{:<16}{}\n", hex(entry.start), hex(entry.length),
                                          hex(*entry.offset), entry.file)
                                  .c_str());
        }
        first_ = false;
        return {};
    }
    void finish() {
        if (json_) std::printf("]\n");
    }

private:
    static std::string hex(std::uint64_t value) { return value == 0 ? "0" : fmt::format("{:#x}", value); }
    bool json_, first_ = true;
};

Entry entry_of(BlockStatus const& status, std::uint64_t start) {
    Entry entry;
    entry.start = start;
    entry.length = status.length;
    entry.depth = status.depth;
    entry.present = status.allocated;
    entry.zero = status.zero;
    entry.data = status.data;
    if (status.host_offset && !status.compressed) {
        entry.offset = status.host_offset;
        entry.file = status.host_file;
    }
    return entry;
}

// Behind the end of a short backing file it is the layer above that answers, with zeroes of no one's.
Task<Result<BlockStatus>> status_at(Image& top, std::uint64_t at, std::uint64_t length) {
    CO_TRY_ASSIGN(BlockStatus status, co_await chain_status(top, at, length));
    Image* layer = &top;
    for (unsigned depth = 1; depth < status.depth; ++depth) layer = layer->backing();
    bool const behind = status.depth > 0 && layer->backing()->size_bytes() <= at;
    AllocationMap* map = behind ? layer->capabilities().allocation : nullptr;
    if (!map) co_return status;
    CO_TRY_ASSIGN(BlockStatus above, co_await map->status(at, status.length));
    above.zero = true;
    above.depth = status.depth - 1;
    co_return above;
}

Task<Result<void>> map(Image& image, std::uint64_t start, std::uint64_t limit, bool json) {
    Printer printer(json);
    std::uint64_t end =
        limit > image.size_bytes() - std::min(start, image.size_bytes()) ? image.size_bytes() : start + limit;
    Entry current;
    current.start = start;
    for (std::uint64_t at = start; at < end;) {
        CO_TRY_ASSIGN(BlockStatus status, co_await status_at(image, at, end - at));
        Entry next = entry_of(status, at);
        at += next.length;
        if (current.length > 0 && current.continues(next)) {
            current.length += next.length;
            continue;
        }
        if (current.length > 0) {
            CO_TRY(printer.add(current));
        }
        current = next;
    }
    CO_TRY(printer.add(current));
    printer.finish();
    co_return Result<void>{};
}

Task<Result<void>> open_and_map(Tool& tool, ImageRequest request, std::uint64_t start, std::uint64_t limit, bool json) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request));
    Result<void> result = co_await map(*image, start, limit, json);
    Result<void> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

} // namespace

int img_map(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"format", 'f', true},       {"output", 0, true},       {"force-share", 'U'},
                                  {"start-offset", 's', true}, {"max-length", 'l', true}, {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    std::uint64_t start = 0, limit = UINT64_MAX;
    auto read_size = [&](char letter, char const* what, std::uint64_t& into) {
        std::string const* text = args.value(letter);
        if (!text) return true;
        Result<std::uint64_t> value = parse_byte_count(tool.name(), what, *text);
        if (!value.ok()) return tool.fail(value.error()), false;
        into = *value;
        return true;
    };
    if (!read_size('s', "start offset", start) || !read_size('l', "max length", limit)) return 1;
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    Result<bool> json = wants_json(args);
    if (!json.ok()) return tool.fail(json.error());
    ImageRequest request{.name = args.operands()[0]};
    request.format = args.value_or('f', "");
    request.image_opts = args.has("image-opts");
    request.force_share = args.has('U');
    Result<void> result = tool.run(open_and_map(tool, request, start, limit, *json));
    return result.ok() ? 0 : tool.fail(result.error());
}

} // namespace vmm::block
