#include "block/tools/common/objects.h"

#include "block/core/open_options.h"

#include <array>
#include <cerrno>
#include <fstream>
#include <iterator>

namespace vmm::block {

namespace {

Result<std::vector<std::uint8_t>> decode_base64(std::vector<std::uint8_t> const& text) {
    constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::vector<std::uint8_t> out;
    std::uint32_t bits = 0;
    int have = 0;
    for (std::uint8_t c : text) {
        if (c == '\n' || c == '\r' || c == '=') continue;
        std::size_t at = alphabet.find(char(c));
        if (at == std::string_view::npos) return error("Base64 data '{}' is not valid", char(c));
        bits = bits << 6 | std::uint32_t(at);
        have += 6;
        if (have >= 8) out.push_back(std::uint8_t(bits >> (have -= 8)));
    }
    return out;
}

} // namespace

Result<void> add_object(SecretStore& secrets, std::string_view definition) {
    bool json = definition.starts_with("{");
    std::string type = json ? "" : std::string(definition.substr(0, definition.find(',')));
    std::size_t comma = definition.find(',');
    OptionValues values;
    if (json)
        values = TRY(parse_json_options(definition));
    else if (comma != std::string_view::npos)
        values = TRY(OptionValues::parse(definition.substr(comma + 1)));
    if (json) type = values.text_or("qom-type", "");
    if (type.starts_with("qom-type=")) type = type.substr(9);
    if (type == "iothread" || type == "throttle-group") return {};
    if (type != "secret") return error("Parameter 'qom-type' does not accept value '{}'", type);
    auto id = values.text("id");
    if (!id) return error("Parameter 'id' is missing");
    std::vector<std::uint8_t> secret;
    if (auto data = values.text("data")) {
        secret.assign(data->begin(), data->end());
    } else if (auto path = values.text("file")) {
        std::ifstream file(*path, std::ios::binary);
        if (!file) return error_from_errno(errno, "Unable to read {}", *path);
        secret.assign(std::istreambuf_iterator<char>(file), {});
    } else {
        return error("Must provide 'file' or 'data'");
    }
    std::string format = values.text_or("format", "raw");
    if (format == "base64")
        secret = TRY(decode_base64(secret));
    else if (format != "raw")
        return error("Parameter 'format' does not accept value '{}'", format);
    secrets.add(*id, std::move(secret));
    return {};
}

} // namespace vmm::block
