#include "block/tools/common/image_opening.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace vmm::block {

Task<Result<std::unique_ptr<Image>>> open_for_tool(Tool& tool, ImageRequest request) {
    OpenOptions options;
    if (request.image_opts) {
        if (!request.name.starts_with("json:") && request.name.find('=') == std::string::npos)
            co_return error("Could not open '{0}': Cannot find device='{0}' nor node-name='{0}'", request.name);
        CO_TRY_ASSIGN(options, parse_image_opts(request.name));
    } else {
        options.filename = request.name;
        options.format = request.format;
    }
    for (auto const& [name, value] : request.extra.all()) options.tree.set(name, value);
    options.read_only = !request.writable;
    options.force_share = request.force_share;
    options.cache = request.cache;
    options.backing = request.backing;
    options.for_check = request.for_check;
    options.no_io = request.no_io;
    options.aio = request.aio;
    options.quiet_probe = true; // we print it below, without the program's name, as QEMU does
    if (request.discard) options.discard = DiscardMode::unmap;
    Result<std::unique_ptr<Image>> opened = co_await open_image(tool.context(), options);
    if (!opened.ok()) co_return opened.error().with_prefix(fmt::format("Could not open '{}'", request.name));
    if ((*opened)->probed_raw() && request.writable && !request.quiet_probe) {
        std::fflush(stdout);
        std::fprintf(stderr, "%s\n", raw_probe_warning(request.name).c_str());
    }
    co_return std::move(opened).value();
}

Result<CacheMode> parse_cache_option(std::string const* given, CacheMode fallback, bool source) {
    if (!given) return fallback;
    Result<CacheMode> mode = parse_cache_mode(*given);
    if (!mode.ok() && source) return error("Invalid source cache option: {}", *given);
    return mode;
}

std::string local_path(std::string_view name) { return std::string(name.starts_with("file:") ? name.substr(5) : name); }

namespace {
// Whether device `part` is a partition of `whole`.
bool is_partition_of(dev_t part, dev_t whole) {
    std::error_code ignored;
    std::filesystem::path link = fmt::format("/sys/dev/block/{}:{}", major(part), minor(part));
    std::filesystem::path resolved = std::filesystem::canonical(link, ignored);
    std::ifstream parent(resolved.parent_path() / "dev");
    unsigned a = 0, b = 0;
    char colon = 0;
    return parent >> a >> colon >> b && makedev(a, b) == whole;
}
} // namespace

std::string mount_point_of(std::string const& path) {
    struct stat target {};
    if (stat(path.c_str(), &target) < 0 || !S_ISBLK(target.st_mode)) return {};
    std::ifstream mounts("/proc/self/mountinfo");
    for (std::string line; std::getline(mounts, line);) {
        std::istringstream words(line);
        std::string id, parent, device, root, where;
        words >> id >> parent >> device >> root >> where;
        unsigned a = 0, b = 0;
        if (std::sscanf(device.c_str(), "%u:%u", &a, &b) != 2) continue;
        if (makedev(a, b) == target.st_rdev || is_partition_of(makedev(a, b), target.st_rdev)) return where;
    }
    return {};
}

} // namespace vmm::block
