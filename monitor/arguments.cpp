#include "monitor/command.h"
#include "monitor/expression.h"

#include <algorithm>
#include <cctype>

namespace vmm::monitor {

namespace {

void skip_blanks(std::string_view& text) {
    while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front()))) text.remove_prefix(1);
}

// "/4xw": count, format and size in any order after the count.
Result<Format> parse_format(std::string_view& text, Format last) {
    Format format = last;
    format.count = 1;
    skip_blanks(text);
    if (!text.starts_with('/')) return format;
    text.remove_prefix(1);
    constexpr std::uint64_t most = 1 << 20; // items of one dump
    std::uint64_t count = 0;
    bool counted = false, sized = false;
    while (!text.empty() && std::isdigit(static_cast<unsigned char>(text.front()))) {
        count = std::min(count * 10 + std::uint64_t(text.front() - '0'), most);
        counted = true;
        text.remove_prefix(1);
    }
    if (counted) format.count = count;
    for (; !text.empty() && !std::isspace(static_cast<unsigned char>(text.front())); text.remove_prefix(1)) {
        char c = text.front();
        switch (c) {
        case 'o':
        case 'd':
        case 'u':
        case 'x':
        case 'i':
        case 'c': format.format = c; break;
        case 'b': format.size = 1, sized = true; break;
        case 'h': format.size = 2, sized = true; break;
        case 'w': format.size = 4, sized = true; break;
        case 'g':
        case 'L': format.size = 8, sized = true; break;
        default: return error("invalid char in format: '{}'", c);
        }
    }
    if (format.format == 'c' && !sized) format.size = 1;
    return format;
}

} // namespace

Result<Arguments> parse_arguments(Command const& command, std::string_view text, Context const& context) {
    Arguments arguments;
    RegisterLookup registers = [&](std::string_view name) { return context.machine.register_value(context.cpu, name); };
    for (Argument const& argument : command.arguments) {
        skip_blanks(text);
        switch (argument.kind) {
        case ArgumentKind::none: break;
        case ArgumentKind::format: arguments.format = TRY(parse_format(text, context.format)); break;
        case ArgumentKind::rest:
            while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back()))) text.remove_suffix(1);
            arguments.words[argument.name] = text;
            text = {};
            break;
        case ArgumentKind::word: {
            std::size_t end = std::min(text.find_first_of(" \t"), text.size());
            if (end == 0 && !argument.optional) return error("{}: string expected", command.name);
            if (end != 0) arguments.words[argument.name] = text.substr(0, end);
            text.remove_prefix(end);
            break;
        }
        case ArgumentKind::expression:
            if (text.empty() && argument.optional) break;
            arguments.numbers[argument.name] = TRY(parse_expression(text, registers));
            break;
        }
    }
    skip_blanks(text);
    if (!text.empty())
        return error("{}{}{}: extraneous characters at the end of line", command.name, command.alias.empty() ? "" : "|",
                     command.alias);
    return arguments;
}

} // namespace vmm::monitor
