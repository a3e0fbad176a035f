#include "block/tools/common/objects.h"

#include "block/core/open_options.h"
#include "block/core/secret_store.h"
#include "block/nbd/tls.h"

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

std::optional<nbd::TlsKind> tls_kind(std::string_view type) {
    if (type == "tls-creds-psk") return nbd::TlsKind::psk;
    if (type == "tls-creds-x509") return nbd::TlsKind::x509;
    if (type == "tls-creds-anon") return nbd::TlsKind::anonymous;
    return std::nullopt;
}

Result<std::vector<std::uint8_t>> secret_bytes(OptionValues const& values) {
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
    if (format == "base64") return decode_base64(secret);
    if (format != "raw") return error("Parameter 'format' does not accept value '{}'", format);
    return secret;
}

} // namespace

Result<void> add_object(Tool& tool, std::string_view definition) {
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
    std::optional<nbd::TlsKind> kind = tls_kind(type);
    if (type != "secret" && !kind) return error("Parameter 'qom-type' does not accept value '{}'", type);
    auto id = values.text("id");
    if (!id) return error("Parameter 'id' is missing");
    if (!kind) {
        if (tool.secrets().find(*id).ok())
            return error("attempt to add duplicate property '{}' to object (type 'container')", *id);
        tool.secrets().add(*id, TRY(secret_bytes(values)));
        return {};
    }
    values.erase("id");
    values.erase("qom-type");
    nbd::TlsSettings settings = TRY(nbd::parse_tls_settings(*kind, values));
    tool.tls().add(*id, TRY(nbd::TlsCredentials::create(std::move(settings))));
    return {};
}

} // namespace vmm::block
