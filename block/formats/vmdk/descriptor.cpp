#include "block/formats/vmdk/descriptor.h"

#include "block/formats/vmdk/header.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

namespace vmm::block::vmdk {

namespace {

constexpr std::array<std::string_view, 5> known_types = {"FLAT", "SPARSE", "ZERO", "VMFS", "VMFSSPARSE"};

std::string_view trim(std::string_view text) {
    std::size_t first = text.find_first_not_of(" \t\r");
    if (first == std::string_view::npos) return {};
    return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

std::string_view unquoted(std::string_view text) {
    if (text.size() >= 2 && text.front() == '"' && text.back() == '"') return text.substr(1, text.size() - 2);
    return text;
}

template <class T> std::optional<T> parse_number(std::string_view text, int base) {
    T value = 0;
    auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (status != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
    return value;
}

// The next word of `line`, or the quoted string it begins with.
std::string_view take_word(std::string_view& line) {
    line = trim(line);
    std::size_t end = line.find_first_of(" \t");
    if (!line.empty() && line.front() == '"') {
        std::size_t quote = line.find('"', 1);
        end = quote == std::string_view::npos ? line.size() : quote + 1;
    }
    std::string_view word = line.substr(0, end);
    line.remove_prefix(word.size());
    return word;
}

Result<ExtentLine> parse_extent(std::string_view line, std::string const& filename) {
    std::string_view rest = line;
    auto bad = [&](std::string_view why) { return error("Could not open '{}': {}: {}", filename, why, line); };
    ExtentLine extent;
    std::string_view access = take_word(rest);
    if (access == "NOACCESS") return bad("extents without access are not supported");
    extent.writable = access == "RW";
    auto sectors = parse_number<std::uint64_t>(take_word(rest), 10);
    if (!sectors || *sectors > max_disk_sectors) return bad("Invalid extent line (size)");
    extent.sectors = *sectors;
    extent.type = std::string(take_word(rest));
    if (std::ranges::find(known_types, extent.type) == known_types.end()) return bad("Unsupported extent type");
    extent.filename = std::string(unquoted(take_word(rest)));
    if (extent.type != "ZERO" && extent.filename.empty()) return bad("Invalid extent line (file name)");
    std::string_view offset = take_word(rest);
    if (!offset.empty()) {
        auto parsed = parse_number<std::uint64_t>(offset, 10);
        if (!parsed || *parsed > max_disk_sectors) return bad("Invalid extent line (offset)");
        extent.offset_sectors = *parsed;
    }
    return extent;
}

} // namespace

bool looks_like_descriptor(std::string_view text) {
    while (!text.empty()) {
        std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = trim(text.substr(0, end));
        if (line.starts_with("version=")) return line.size() > 8 && line[8] >= '1' && line[8] <= '9';
        if (!line.empty() && line.front() != '#') return false;
        if (end == text.size()) return false;
        text.remove_prefix(end + 1);
    }
    return false;
}

Result<Descriptor> parse_descriptor(std::string_view text, std::string const& filename) {
    Descriptor result;
    text = text.substr(0, text.find('\0'));
    for (std::size_t at = 0; at < text.size();) {
        std::size_t end = std::min(text.find('\n', at), text.size());
        std::string_view raw = text.substr(at, end - at), line = trim(raw);
        std::size_t position = at + (raw.empty() ? 0 : std::size_t(line.data() - raw.data()));
        at = end + 1;
        if (line.empty() || line.front() == '#') continue;
        if (line.starts_with("RW ") || line.starts_with("RDONLY ") || line.starts_with("NOACCESS ")) {
            if (result.extents.size() >= max_extents)
                return error("Could not open '{}': more than {} extents", filename, max_extents);
            result.extents.push_back(TRY(parse_extent(line, filename)));
            continue;
        }
        std::size_t equals = line.find('=');
        if (equals == std::string_view::npos) continue;
        std::string_view key = trim(line.substr(0, equals)), value = trim(line.substr(equals + 1));
        if (key == "CID" || key == "parentCID") {
            auto id = parse_number<std::uint32_t>(value, 16);
            if (!id) return error("Could not open '{}': Invalid {}: {}", filename, key, value);
            (key == "CID" ? result.cid : result.parent_cid) = *id;
            if (value.size() == 8)
                (key == "CID" ? result.cid_position : result.parent_cid_position) = position + line.size() - 8;
        } else if (key == "createType") {
            result.create_type = std::string(unquoted(value));
        } else if (key == "parentFileNameHint") {
            result.parent_hint = std::string(unquoted(value));
        }
    }
    return result;
}

} // namespace vmm::block::vmdk
