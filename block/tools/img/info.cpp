// vmm-img info
#include "block/core/image_info.h"
#include "block/tools/common/partitions.h"
#include "block/tools/img/command.h"

#include <cstdio>
#include <set>

namespace vmm::block {

namespace {

struct InfoRequest {
    ImageRequest image;
    bool chain = false;
    bool partitions = false;
};
struct LayerInfo {
    ImageInfo info;
    std::vector<Partition> partitions;
};

Task<Result<std::vector<LayerInfo>>> collect_chain(Tool& tool, InfoRequest request) {
    std::vector<LayerInfo> layers;
    std::set<std::string> seen;
    ImageRequest next = request.image;
    for (;;) {
        next.backing = BackingChoice::none;
        next.no_io = !request.partitions;
        CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, next));
        if (layers.size() >= max_chain_depth || !seen.insert(image->filename()).second)
            co_return error("Backing file '{}' creates an infinite loop.", image->filename());
        LayerInfo layer;
        CO_TRY_ASSIGN(layer.info, co_await collect_info(*image));
        if (request.partitions) {
            CO_TRY_ASSIGN(layer.partitions, co_await read_partitions(*image));
        }
        std::string below = image->full_backing_filename();
        next = ImageRequest{};
        next.name = below;
        next.format = layer.info.backing.format;
        next.force_share = request.image.force_share;
        layers.push_back(std::move(layer));
        CO_TRY(co_await close_image(std::move(image)));
        if (!request.chain || below.empty()) co_return std::move(layers);
    }
}

void print_partitions(std::vector<Partition> const& partitions) {
    if (!partitions.empty()) std::printf("Partitions:\n");
    for (Partition const& p : partitions)
        std::printf("    p%u: offset %llu, %s (%llu bytes), type %s\n", p.number,
                    static_cast<unsigned long long>(p.offset), human_size(p.length).c_str(),
                    static_cast<unsigned long long>(p.length), p.type.c_str());
}

Value partitions_value(std::vector<Partition> const& partitions) {
    Value list = Value::list();
    for (Partition const& p : partitions) {
        Value one;
        one.set("number", p.number).set("offset", p.offset).set("length", p.length).set("type", p.type);
        list.add(std::move(one));
    }
    return list;
}

} // namespace

int img_info(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"format", 'f', true}, {"output", 0, true}, {"backing-chain", 0},
                                  {"force-share", 'U'},  {"image-opts", 0},   {"partitions", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    Result<bool> json = wants_json(args);
    if (!json.ok()) return tool.fail(json.error());
    InfoRequest request;
    request.image.name = args.operands()[0];
    request.image.format = args.value_or('f', "");
    request.image.image_opts = args.has("image-opts");
    request.image.force_share = args.has('U');
    request.chain = args.has("backing-chain");
    request.partitions = args.has("partitions");
    bool chain = request.chain;
    bool partitions = request.partitions;
    Result<std::vector<LayerInfo>> layers = tool.run(collect_chain(tool, std::move(request)));
    if (!layers.ok()) return tool.fail(layers.error());
    if (!*json) {
        bool first = true;
        for (LayerInfo const& layer : *layers) {
            std::printf("%s%s", first ? "" : "\n", info_text(layer.info).c_str());
            print_partitions(layer.partitions);
            first = false;
        }
        return 0;
    }
    Value list = Value::list();
    for (LayerInfo const& layer : *layers) {
        Value one = info_value(layer.info);
        if (partitions) one.set("partitions", partitions_value(layer.partitions));
        list.add(std::move(one));
    }
    std::printf("%s\n", chain ? list.json().c_str() : list.as_list()->front().json().c_str());
    return 0;
}

} // namespace vmm::block
