#include "monitor/expression.h"

#include <cctype>
#include <charconv>

namespace vmm::monitor {

namespace {

constexpr unsigned deepest = 100; // parentheses and signs inside each other

struct Parser {
    std::string_view& text;
    RegisterLookup const& registers;
    unsigned depth = 0;

    void skip_blanks() {
        while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
    }
    char peek() {
        skip_blanks();
        return text.empty() ? '\0' : text.front();
    }

    Result<std::uint64_t> sum() {
        std::uint64_t value = TRY(logic());
        for (char op; (op = peek()) == '+' || op == '-';) {
            text.remove_prefix(1);
            std::uint64_t other = TRY(logic());
            value = op == '+' ? value + other : value - other;
        }
        return value;
    }
    Result<std::uint64_t> logic() {
        std::uint64_t value = TRY(product());
        for (char op; (op = peek()) == '&' || op == '|' || op == '^';) {
            text.remove_prefix(1);
            std::uint64_t other = TRY(product());
            value = op == '&' ? value & other : op == '|' ? value | other : value ^ other;
        }
        return value;
    }
    Result<std::uint64_t> product() {
        std::uint64_t value = TRY(unary());
        for (char op; (op = peek()) == '*' || op == '/' || op == '%';) {
            text.remove_prefix(1);
            std::uint64_t other = TRY(unary());
            if (op != '*' && other == 0) return error("division by zero");
            value = op == '*' ? value * other : op == '/' ? value / other : value % other;
        }
        return value;
    }
    Result<std::uint64_t> unary() {
        if (++depth > deepest) return error("expression too deep");
        auto value = primary();
        --depth;
        return value;
    }
    Result<std::uint64_t> primary() {
        char c = peek();
        if (text.empty()) return error("unexpected end of expression");
        if (c == '+' || c == '-' || c == '~') {
            text.remove_prefix(1);
            std::uint64_t value = TRY(unary());
            return c == '-' ? 0 - value : c == '~' ? ~value : value;
        }
        if (c == '(') {
            text.remove_prefix(1);
            std::uint64_t value = TRY(sum());
            if (peek() != ')') return error("')' expected");
            text.remove_prefix(1);
            return value;
        }
        if (c == '\'') {
            if (text.size() < 3 || text[2] != '\'') return error("missing terminating ' character");
            std::uint64_t value = static_cast<unsigned char>(text[1]);
            text.remove_prefix(3);
            return value;
        }
        if (c == '$') return register_value();
        if (std::isdigit(static_cast<unsigned char>(c))) return number();
        return error("invalid char '{}' in expression", c);
    }
    Result<std::uint64_t> register_value() {
        std::size_t end = 1;
        while (end < text.size() &&
               (std::isalnum(static_cast<unsigned char>(text[end])) || text[end] == '_' || text[end] == '.'))
            ++end;
        auto value = registers ? registers(text.substr(1, end - 1)) : std::nullopt;
        if (!value) return error("unknown register");
        text.remove_prefix(end);
        return *value;
    }
    Result<std::uint64_t> number() {
        int base = 10;
        if (text.size() > 2 && text[0] == '0' && (text[1] == 'x' || text[1] == 'X') &&
            std::isxdigit(static_cast<unsigned char>(text[2])))
            base = 16, text.remove_prefix(2);
        else if (text.size() > 1 && text[0] == '0' && std::isdigit(static_cast<unsigned char>(text[1])))
            base = 8;
        std::uint64_t value = 0;
        auto [end, failure] = std::from_chars(text.data(), text.data() + text.size(), value, base);
        if (failure == std::errc::result_out_of_range) return error("number too large");
        if (failure != std::errc{}) return error("invalid char '{}' in expression", text.front());
        text.remove_prefix(std::size_t(end - text.data()));
        return value;
    }
};

} // namespace

Result<std::uint64_t> parse_expression(std::string_view& text, RegisterLookup const& registers) {
    Parser parser{text, registers};
    auto value = parser.sum();
    if (value) parser.skip_blanks();
    return value;
}

} // namespace vmm::monitor
