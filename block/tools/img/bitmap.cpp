// vmm-img bitmap
#include "block/core/capabilities.h"
#include "block/tools/img/command.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::block {

namespace {

struct Action {
    std::string name;   // "add", "remove", ...
    std::string source; // of "merge"
};
struct BitmapCommand {
    ImageRequest image;
    std::string bitmap;
    std::vector<Action> actions;
    std::string source_file, source_format; // -b, -F
    std::uint32_t granularity = 0;          // 0: the default
};
constexpr std::uint32_t default_granularity = 65536, min_granularity = 512;

Result<void> require(DirtyBitmaps& bitmaps, std::string const& name) {
    std::vector<BitmapInfo> all = bitmaps.bitmaps();
    if (std::ranges::find(all, name, &BitmapInfo::name) == all.end()) return error("Dirty bitmap '{}' not found", name);
    return {};
}

Task<Result<void>> add(DirtyBitmaps& bitmaps, BitmapCommand const& command, std::uint32_t cluster) {
    std::vector<BitmapInfo> all = bitmaps.bitmaps();
    if (std::ranges::find(all, command.bitmap, &BitmapInfo::name) != all.end())
        co_return error("Bitmap already exists: {}", command.bitmap);
    std::uint32_t granularity = command.granularity ? command.granularity : std::max<std::uint32_t>(cluster, 4096);
    if (!is_power_of_two(granularity) || granularity < min_granularity)
        co_return error("Granularity must be power of 2 and at least {}", min_granularity);
    BitmapInfo info{.name = command.bitmap, .granularity_bytes = granularity};
    Result<void> result = co_await bitmaps.add_bitmap(info);
    co_return result;
}

Task<Result<void>> merge(DirtyBitmaps& to, std::string into, DirtyBitmaps& from, std::string source,
                         std::uint64_t size) {
    CO_TRY(require(from, source));
    CO_TRY(require(to, into));
    for (std::uint64_t at = 0; at < size;) {
        CO_TRY_ASSIGN(DirtyBitmaps::Stretch stretch, co_await from.bitmap_status(source, at));
        if (stretch.length == 0) break;
        if (stretch.dirty) {
            CO_TRY(co_await to.mark_dirty(into, at, std::min(stretch.length, size - at)));
        }
        at += stretch.length;
    }
    co_return Result<void>{};
}

Task<Result<void>> act(Image& image, Image* source, BitmapCommand const& command, Action action) {
    DirtyBitmaps* bitmaps = image.capabilities().bitmaps;
    if (!bitmaps && action.name != "add") co_return error("Dirty bitmap '{}' not found", command.bitmap);
    if (!bitmaps && image.format_name() == "qcow2")
        co_return error("Can't make bitmap '{}' persistent in '{}': Cannot store dirty bitmaps in qcow2 v2 files",
                        command.bitmap, image.filename());
    if (!bitmaps) co_return error("Can't store persistent bitmaps to {}: {}", image.filename(), std::strerror(ENOTSUP));
    Result<void> result;
    if (action.name == "add") {
        std::uint32_t cluster = image.limits().opt_transfer ? image.limits().opt_transfer : default_granularity;
        result = co_await add(*bitmaps, command, cluster);
        co_return result;
    }
    CO_TRY(require(*bitmaps, command.bitmap));
    if (action.name == "remove") {
        result = co_await bitmaps->remove_bitmap(command.bitmap);
    } else if (action.name == "clear") {
        result = co_await bitmaps->clear_bitmap(command.bitmap);
    } else if (action.name == "enable" || action.name == "disable") {
        result = co_await bitmaps->set_bitmap_enabled(command.bitmap, action.name == "enable");
    } else {
        Image& holder = source ? *source : image;
        DirtyBitmaps* from = holder.capabilities().bitmaps;
        if (!from) co_return error("Dirty bitmap '{}' not found", action.source);
        result = co_await merge(*bitmaps, command.bitmap, *from, action.source, image.size_bytes());
    }
    co_return result;
}

Task<Result<void>> run(Tool& tool, BitmapCommand command) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, command.image));
    std::unique_ptr<Image> source;
    Result<void> result;
    if (!command.source_file.empty()) {
        ImageRequest request{.name = command.source_file, .format = command.source_format};
        request.backing = BackingChoice::none;
        Result<std::unique_ptr<Image>> opened = co_await open_for_tool(tool, request);
        if (opened.ok())
            source = std::move(opened).value();
        else
            result = opened.error();
    }
    for (Action const& action : command.actions) {
        if (!result.ok()) break;
        result = co_await act(*image, source.get(), command, action);
        if (!result.ok())
            result = result.error().with_prefix(
                fmt::format("Operation {} on bitmap {} failed", action.name, command.bitmap));
    }
    if (source) result = co_await close_after(std::move(source), result);
    Result<void> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

} // namespace

int img_bitmap(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {
        {"add", 0},         {"remove", 0},   {"clear", 0},    {"enable", 0},   {"disable", 0},
        {"merge", 0, true}, {"", 'b', true}, {"", 'f', true}, {"", 'F', true}, {"granularity", 'g', true},
        {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    BitmapCommand command;
    bool adds = false, merges = false;
    for (Arguments::Given const& one : args.given()) {
        std::string_view name = one.row.name;
        if (name != "add" && name != "remove" && name != "clear" && name != "enable" && name != "disable" &&
            name != "merge")
            continue;
        adds |= name == "add";
        merges |= name == "merge";
        command.actions.push_back({std::string(name), one.value});
    }
    if (std::string const* text = args.value('g')) {
        Result<std::uint64_t> value = parse_byte_count(tool.name(), "granularity", *text);
        if (!value.ok()) return tool.fail(value.error());
        command.granularity = std::uint32_t(std::min<std::uint64_t>(*value, UINT32_MAX));
    }
    if (command.actions.empty())
        return tool.fail("Need at least one of --add, --remove, --clear, --enable, --disable, or --merge");
    if (command.granularity && !adds) return tool.fail("granularity only supported with --add");
    if (args.has('F') && !args.has('b')) return tool.fail("-F only supported with -b");
    if (args.has('b') && !merges) return tool.fail("Merge bitmap source file only supported with --merge");
    if (args.has("image-opts") && args.has('f')) return tool.fail("--image-opts and --format are mutually exclusive");
    if (args.operands().size() != 2) return tool.usage_error("Expecting filename and bitmap name");
    command.image.name = args.operands()[0];
    command.image.format = args.value_or('f', "");
    command.image.image_opts = args.has("image-opts");
    command.image.writable = true;
    command.image.backing = BackingChoice::none;
    command.bitmap = args.operands()[1];
    command.source_file = args.value_or('b', "");
    command.source_format = args.value_or('F', "");
    Result<void> result = tool.run(run(tool, std::move(command)));
    return result.ok() ? 0 : tool.fail(result.error());
}

} // namespace vmm::block
