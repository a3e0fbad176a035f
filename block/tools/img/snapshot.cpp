// vmm-img snapshot
#include "block/core/image_info.h"
#include "block/tools/img/command.h"

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

namespace vmm::block {

namespace {

Task<Result<void>> act(Image& image, char action, std::string name) {
    Snapshots* snapshots = image.capabilities().snapshots;
    Result<void> result;
    if (action == 'l') {
        std::vector<SnapshotInfo> list;
        if (snapshots) list = snapshots->list();
        if (!list.empty()) std::printf("Snapshot list:\n%s", snapshot_table(list).c_str());
    } else if (action == 'c') {
        if (!snapshots) co_return error("Could not create snapshot '{}': {}", name, std::strerror(ENOTSUP));
        auto now = std::chrono::system_clock::now().time_since_epoch();
        auto seconds = std::chrono::duration_cast<std::chrono::seconds>(now);
        constexpr std::size_t longest_name = 255;
        SnapshotRequest request{.name = name.substr(0, longest_name), .date_seconds = seconds.count(), .icount = 0};
        request.date_nanoseconds =
            std::uint32_t(std::chrono::duration_cast<std::chrono::nanoseconds>(now - seconds).count());
        result = co_await snapshots->create(request);
        if (!result.ok()) co_return result.error().with_prefix(fmt::format("Could not create snapshot '{}'", name));
    } else if (action == 'a') {
        if (!snapshots) co_return error("Could not apply snapshot '{}': Block driver does not support snapshots", name);
        result = co_await snapshots->apply(name);
        if (!result.ok())
            co_return error("Could not apply snapshot '{}': Failed to load snapshot: {}", name,
                            result.error().errno_value() == ENOENT ? std::strerror(ENOENT) : result.error().message());
    } else if (action == 'd') {
        // By name only: a number is no id here.
        std::vector<SnapshotInfo> list;
        if (snapshots) list = snapshots->list();
        auto named = std::ranges::find(list, name, &SnapshotInfo::name);
        if (named == list.end()) co_return error("Could not delete snapshot '{}': snapshot not found", name);
        result = co_await snapshots->remove(named->id);
        if (!result.ok()) co_return result.error().with_prefix(fmt::format("Could not delete snapshot '{}'", name));
    }
    co_return result;
}

Task<Result<void>> open_and_act(Tool& tool, ImageRequest request, char action, std::string name) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request));
    Result<void> result = co_await act(*image, action, name);
    Result<void> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

} // namespace

int img_snapshot(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'l'}, {"", 'a', true},   {"", 'c', true},     {"", 'd', true},
                                  {"", 'q'}, {"image-opts", 0}, {"force-share", 'U'}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    char action = 0;
    std::string name;
    for (Arguments::Given const& one : args.given()) {
        if (std::strchr("lacd", one.row.letter) == nullptr || one.row.letter == 0) continue;
        if (action != 0) return tool.usage_error("Cannot mix '-l', '-a', '-c', '-d'");
        action = one.row.letter;
        name = one.value;
    }
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    ImageRequest request{.name = args.operands()[0]};
    request.image_opts = args.has("image-opts");
    request.force_share = args.has('U');
    request.writable = action != 'l';
    if (request.force_share && request.writable)
        return tool.fail(
            fmt::format("Could not open '{}': force-share=on can only be used with read-only images", request.name));
    request.backing = action == 'a' ? BackingChoice::from_image : BackingChoice::none;
    Result<void> result = tool.run(open_and_act(tool, request, action, name));
    return result.ok() ? 0 : tool.fail(result.error());
}

} // namespace vmm::block
