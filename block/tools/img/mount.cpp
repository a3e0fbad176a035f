// vmm-img mount: the disk and its partitions as raw files, without root.
#include "block/tools/common/interrupts.h"
#include "block/tools/common/partitions.h"
#include "block/tools/img/command.h"
#include "block/tools/img/fuse_server.h"

#include <cstdio>

namespace vmm::block {

int img_mount(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {
        {"format", 'f', true}, {"read-only", 'r'}, {"", 't', true}, {"", 'q'}, {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (args.operands().size() != 2) return tool.usage_error("Expecting image file name and directory");
    Result<CacheMode> cache = parse_cache_option(args.value('t'), CacheMode::writeback);
    if (!cache.ok()) return tool.fail(cache.error());
    ImageRequest request{.name = args.operands()[0]};
    request.format = args.value_or('f', "");
    request.image_opts = args.has("image-opts");
    request.writable = !args.has('r');
    request.cache = *cache;
    std::string const& directory = args.operands()[1];
    Interrupts interrupts(tool.loop(), [] {});
    Result<std::unique_ptr<Image>> image = tool.run(open_for_tool(tool, request));
    if (!image.ok()) return tool.fail(image.error());
    std::vector<FuseWindow> windows{{"disk", 0, (*image)->size_bytes()}};
    Result<void> result;
    Result<std::vector<Partition>> partitions = tool.run(read_partitions(**image));
    if (partitions.ok()) {
        for (Partition const& p : *partitions) windows.push_back({fmt::format("p{}", p.number), p.offset, p.length});
        bool ended = false;
        auto server = FuseServer::mount(tool.loop(), **image, windows, directory, [&ended] { ended = true; });
        if (server.ok()) {
            if (!args.has('q')) {
                std::printf("'%s' is mounted on '%s'; unmount with: fusermount3 -u %s\n", request.name.c_str(),
                            directory.c_str(), directory.c_str());
                std::fflush(stdout);
            }
            while (!ended) {
                tool.loop().run_once(-1);
                if (interrupts.pending()) (*server)->unmount();
            }
            while ((*server)->busy()) tool.loop().run_once(-1);
        } else {
            result = server.error();
        }
    } else {
        result = partitions.error();
    }
    if (request.writable && result.ok()) result = tool.run((*image)->flush());
    result = tool.run(close_after(std::move(image).value(), result));
    return result.ok() ? 0 : tool.fail(result.error());
}

} // namespace vmm::block
