// Value: a small ordered tree of named values: what `info` shows, printable as QEMU's text and as JSON.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace vmm::block {

// A null, bool, integer, string, list or dictionary (in insertion order).
class Value {
public:
    using List = std::vector<Value>;
    using Dict = std::vector<std::pair<std::string, Value>>;

    Value() = default;
    Value(bool v) : data_(v) {}
    Value(std::uint64_t v) : data_(v) {}
    Value(std::int64_t v) : data_(v) {}
    Value(int v) : data_(std::int64_t(v)) {}
    Value(unsigned v) : data_(std::uint64_t(v)) {}
    Value(std::string v) : data_(std::move(v)) {}
    Value(std::string_view v) : data_(std::string(v)) {}
    Value(char const* v) : data_(std::string(v)) {}
    static Value list() { return Value(List{}); }
    static Value dict() { return Value(Dict{}); }

    bool is_null() const { return std::holds_alternative<std::monostate>(data_); }
    bool is_list() const { return std::holds_alternative<List>(data_); }
    bool is_dict() const { return std::holds_alternative<Dict>(data_); }
    List const* as_list() const { return std::get_if<List>(&data_); }
    Dict const* as_dict() const { return std::get_if<Dict>(&data_); }
    std::string const* as_string() const { return std::get_if<std::string>(&data_); }

    // Appends to a dictionary (a null becomes one); returns *this for chaining.
    Value& set(std::string key, Value value);
    // Appends to a list (a null becomes one).
    Value& add(Value value);
    // A dictionary's entry, or null when absent or not a dictionary.
    Value const* find(std::string_view key) const;

    // A scalar as text: true/false, decimal, the string itself.
    std::string scalar_text() const;
    // JSON with `indent` spaces a level as QEMU prints it ("key": value), dictionaries in insertion order.
    std::string json(int indent = 4, int level = 0) const;
    // QEMU's human form: "    key with spaces: value" lines, '-' in keys shown as ' ', list items as "[0]:"; `level`
    // indents by 4.
    std::string text(int level) const;

private:
    explicit Value(List v) : data_(std::move(v)) {}
    explicit Value(Dict v) : data_(std::move(v)) {}
    std::variant<std::monostate, bool, std::uint64_t, std::int64_t, std::string, List, Dict> data_;
};

// `text` in JSON quotes, escaped.
std::string json_quote(std::string_view text);

} // namespace vmm::block
