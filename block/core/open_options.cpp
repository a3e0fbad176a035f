#include "block/core/open_options.h"

#include <nlohmann/json.hpp>

namespace vmm::block {

namespace {

constexpr int max_json_depth = 32;

Result<void> flatten(nlohmann::json const& node, std::string const& prefix, OptionValues& out, int depth) {
    if (depth > max_json_depth) return error("JSON options are nested deeper than {} levels", max_json_depth);
    auto each = [&](std::string const& key, nlohmann::json const& value) -> Result<void> {
        return flatten(value, prefix.empty() ? key : prefix + "." + key, out, depth + 1);
    };
    if (node.is_object()) {
        for (auto const& [key, value] : node.items()) TRY(each(key, value));
    } else if (node.is_array()) {
        for (std::size_t i = 0; i < node.size(); ++i) TRY(each(std::to_string(i), node[i]));
    } else if (node.is_string()) {
        out.set(prefix, node.get<std::string>());
    } else if (node.is_boolean()) {
        out.set(prefix, node.get<bool>() ? "on" : "off");
    } else if (node.is_null()) {
        out.set(prefix, "");
    } else {
        out.set(prefix, node.dump());
    }
    return {};
}

} // namespace

Result<CacheMode> parse_cache_mode(std::string_view text) {
    if (text == "writeback") return CacheMode::writeback;
    if (text == "none" || text == "off") return CacheMode::none;
    if (text == "unsafe") return CacheMode::unsafe;
    if (text == "directsync") return CacheMode::directsync;
    if (text == "writethrough") return CacheMode::writethrough;
    return error("Invalid cache option: {}", text);
}

Result<AioEngine> parse_aio_engine(std::string_view text) {
    if (text == "threads") return AioEngine::threads;
    if (text == "native") return AioEngine::native;
    if (text == "io_uring") return AioEngine::io_uring;
    return error("Invalid aio option: {}", text);
}

Result<DiscardMode> parse_discard_mode(std::string_view text) {
    if (text == "off" || text == "ignore") return DiscardMode::ignore;
    if (text == "on" || text == "unmap") return DiscardMode::unmap;
    return error("Invalid discard option");
}

Result<DetectZeroes> parse_detect_zeroes(std::string_view text) {
    if (text == "off") return DetectZeroes::off;
    if (text == "on") return DetectZeroes::on;
    if (text == "unmap") return DetectZeroes::unmap;
    return error("invalid parameter value: {}", text);
}

Result<OptionValues> parse_json_options(std::string_view json_text) {
    nlohmann::json parsed = nlohmann::json::parse(json_text, nullptr, /*allow_exceptions=*/false);
    if (parsed.is_discarded()) return error("Could not parse the JSON options: {}", json_text);
    if (!parsed.is_object()) return error("Invalid JSON object given");
    OptionValues values;
    TRY(flatten(parsed, "", values, 0));
    return values;
}

Result<OpenOptions> parse_image_opts(std::string_view text) {
    OpenOptions options;
    if (text.starts_with("json:"))
        options.tree = TRY(parse_json_options(text.substr(5)));
    else
        options.tree = TRY(OptionValues::parse(text));
    return options;
}

} // namespace vmm::block
