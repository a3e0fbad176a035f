#include "block/core/value.h"

#include "vmm/base/assert.h"

#include <fmt/core.h>

#include <algorithm>

namespace vmm::block {

Value& Value::set(std::string key, Value value) {
    if (is_null()) data_ = Dict{};
    Dict* dict = std::get_if<Dict>(&data_);
    VMM_ASSERT(dict);
    dict->emplace_back(std::move(key), std::move(value));
    return *this;
}

Value& Value::add(Value value) {
    if (is_null()) data_ = List{};
    List* list = std::get_if<List>(&data_);
    VMM_ASSERT(list);
    list->push_back(std::move(value));
    return *this;
}

Value const* Value::find(std::string_view key) const {
    Dict const* dict = as_dict();
    if (!dict) return nullptr;
    for (auto const& [name, value] : *dict)
        if (name == key) return &value;
    return nullptr;
}

std::string Value::scalar_text() const {
    if (auto const* b = std::get_if<bool>(&data_)) return *b ? "true" : "false";
    if (auto const* u = std::get_if<std::uint64_t>(&data_)) return std::to_string(*u);
    if (auto const* i = std::get_if<std::int64_t>(&data_)) return std::to_string(*i);
    if (auto const* s = as_string()) return *s;
    return is_null() ? "null" : "";
}

std::string json_quote(std::string_view text) {
    std::string out = "\"";
    for (char c : text) {
        switch (c) {
        case '"': out += "\\\""; break;
        case '\\': out += "\\\\"; break;
        case '\b': out += "\\b"; break;
        case '\f': out += "\\f"; break;
        case '\n': out += "\\n"; break;
        case '\r': out += "\\r"; break;
        case '\t': out += "\\t"; break;
        default:
            if (static_cast<unsigned char>(c) < 0x20)
                out += fmt::format("\\u{:04X}", unsigned(c));
            else
                out += c;
        }
    }
    return out + '"';
}

std::string Value::json(int indent, int level) const {
    std::string const inner(std::size_t(indent * (level + 1)), ' ');
    std::string const outer(std::size_t(indent * level), ' ');
    if (Dict const* dict = as_dict()) {
        std::string out = "{\n";
        for (std::size_t i = 0; i < dict->size(); ++i)
            out += fmt::format("{}{}: {}{}\n", inner, json_quote((*dict)[i].first),
                               (*dict)[i].second.json(indent, level + 1), i + 1 < dict->size() ? "," : "");
        return out + outer + "}";
    }
    if (List const* list = as_list()) {
        std::string out = "[\n";
        for (std::size_t i = 0; i < list->size(); ++i)
            out += fmt::format("{}{}{}\n", inner, (*list)[i].json(indent, level + 1), i + 1 < list->size() ? "," : "");
        return out + outer + "]";
    }
    if (std::string const* s = as_string()) return json_quote(*s);
    return scalar_text();
}

namespace {
void append_entry(std::string& out, std::string const& label, Value const& value, int level) {
    bool composite = value.is_dict() || value.is_list();
    out += fmt::format("{}{}:{}{}\n", std::string(std::size_t(level * 4), ' '), label, composite ? "" : " ",
                       composite ? "" : value.scalar_text());
    if (composite) out += value.text(level + 1);
}
} // namespace

std::string Value::text(int level) const {
    std::string out;
    if (Dict const* dict = as_dict()) {
        for (auto const& [name, value] : *dict) {
            std::string label = name;
            std::ranges::replace(label, '-', ' ');
            append_entry(out, label, value, level);
        }
    } else if (List const* list = as_list()) {
        for (std::size_t i = 0; i < list->size(); ++i) append_entry(out, fmt::format("[{}]", i), (*list)[i], level);
    } else {
        out = fmt::format("{}{}\n", std::string(std::size_t(level * 4), ' '), scalar_text());
    }
    return out;
}

} // namespace vmm::block
