// `x`, `xp` and `print`: how numbers and memory are shown.
#include "monitor/command.h"

#include <algorithm>

namespace vmm::monitor {

namespace {

std::int64_t sign_extend(std::uint64_t value, unsigned size) {
    unsigned unused = 64 - 8 * size;
    return std::int64_t(value << unused) >> unused;
}

std::string character(std::uint64_t value) {
    switch (char c = char(value); c) {
    case '\'': return "'\\''";
    case '\\': return "'\\\\'";
    case '\n': return "'\\n'";
    case '\r': return "'\\r'";
    default: return c >= 32 && c <= 126 ? fmt::format("'{}'", c) : fmt::format("'\\x{:02x}'", value & 0xff);
    }
}

// Digits the widest value of `size` bytes needs.
unsigned width(char format, unsigned size) {
    switch (format) {
    case 'o': return (8 * size + 2) / 3;
    case 'u':
    case 'd': return size == 1 ? 3 : size == 2 ? 5 : size == 4 ? 10 : 20;
    default: return 2 * size;
    }
}

void dump_instructions(Context& context, std::uint64_t count, std::uint64_t address, Space space) {
    constexpr std::size_t longest = 16;
    for (std::uint64_t i = 0; i < count; ++i) {
        std::array<std::uint8_t, longest> bytes{};
        std::size_t have = longest; // near the end of what is mapped an instruction may still be whole
        while (have > 0 && !context.machine.read_memory(space, context.cpu, address, std::span(bytes).first(have)))
            --have;
        if (have == 0) {
            context.out += fmt::format("0x{:08x}:  Cannot access memory\n", address);
            return;
        }
        auto instruction = context.machine.disassemble(context.cpu, address, std::span(bytes).first(have));
        if (!instruction) {
            context.out += "Error: this build cannot disassemble for this CPU\n";
            return;
        }
        std::size_t length = std::clamp<std::size_t>(instruction->length, 1, have);
        std::string hex;
        for (std::size_t b = 0; b < length; ++b) hex += fmt::format("{:02x} ", bytes[b]);
        context.out += fmt::format("0x{:08x}:  {:<24} {}\n", address, hex, instruction->text);
        address += length;
    }
}

} // namespace

std::string format_number(std::uint64_t value, Format format) {
    switch (format.format) {
    case 'x': return value == 0 ? "0" : fmt::format("{:#x}", value);
    case 'u': return fmt::format("{}", value);
    case 'o': return fmt::format("{:#o}", value);
    case 'c': return character(value);
    default: return fmt::format("{}", std::int64_t(value));
    }
}

void dump_memory(Context& context, Format format, std::uint64_t address, Space space) {
    if (format.format == 'i') return dump_instructions(context, format.count, address, space);
    std::size_t per_line = (format.size == 1 ? 8 : 16) / format.size;
    for (std::uint64_t i = 0; i < format.count; ++i, address += format.size) {
        if (i % per_line == 0) context.out += fmt::format("{}{:016x}:", i == 0 ? "" : "\n", address);
        std::array<std::uint8_t, 8> bytes{};
        if (!context.machine.read_memory(space, context.cpu, address, std::span(bytes).first(format.size))) {
            context.out += " Cannot access memory";
            break;
        }
        std::uint64_t value = 0; // every guest we list memory of this way is shown in little-endian units
        for (unsigned b = format.size; b-- > 0;) value = value << 8 | bytes[b];
        unsigned digits = width(format.format, format.size);
        switch (format.format) {
        case 'x': context.out += fmt::format(" 0x{:0{}x}", value, digits); break;
        case 'o': context.out += fmt::format(" {:#{}o}", value, digits); break;
        case 'u': context.out += fmt::format(" {:{}}", value, digits); break;
        case 'c': context.out += " " + character(value); break;
        default: context.out += fmt::format(" {:{}}", sign_extend(value, format.size), digits); break;
        }
    }
    context.out += '\n';
}

} // namespace vmm::monitor
