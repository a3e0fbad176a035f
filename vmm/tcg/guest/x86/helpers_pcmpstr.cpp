// PCMPESTRI, PCMPESTRM, PCMPISTRI, PCMPISTRM (SDM vol. 1 14.x / vol. 2 4.1 "imm8 control byte").
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace vmm::tcg::x86 {

namespace {

// One operand as integers, with how many of them count.
struct Text {
    std::array<std::int32_t, 16> element{};
    unsigned length = 0;
};

enum class Aggregation : std::uint8_t { any, ranges, each, ordered };

struct Control {
    bool words, is_signed, negative, masked_negative, last_or_wide;
    Aggregation aggregation;
    explicit Control(unsigned imm)
        : words(imm & 1), is_signed(imm & 2), negative(imm & 0x10), masked_negative(imm & 0x20),
          last_or_wide(imm & 0x40), aggregation(Aggregation(imm >> 2 & 3)) {}
    unsigned count() const { return words ? 8 : 16; }
};

Text read_text(void const* bytes, Control const& control) {
    Text t;
    for (unsigned i = 0; i < control.count(); i++) {
        if (control.words) {
            std::uint16_t w;
            std::memcpy(&w, static_cast<char const*>(bytes) + 2 * i, 2);
            t.element[i] = control.is_signed ? std::int16_t(w) : w;
        } else {
            std::uint8_t u = static_cast<std::uint8_t const*>(bytes)[i];
            t.element[i] = control.is_signed ? std::int8_t(u) : u;
        }
    }
    t.length = control.count();
    return t;
}
void limit_by_null(Text& t) {
    unsigned n = t.length;
    for (unsigned i = n; i-- > 0;)
        if (t.element[i] == 0) n = i;
    t.length = n;
}
void limit_by_register(Text& t, std::uint64_t value, bool wide) {
    std::int64_t v = wide ? std::int64_t(value) : std::int32_t(value);
    std::uint64_t magnitude = v < 0 ? 0 - std::uint64_t(v) : std::uint64_t(v);
    t.length = unsigned(std::min<std::uint64_t>(t.length, magnitude));
}

// IntRes1: bit j says whether element j of y matches (x is the set, the ranges, the string or the needle).
unsigned aggregate(Control const& control, Text const& x, Text const& y) {
    unsigned n = control.count(), result = 0;
    for (unsigned j = 0; j < n; j++) {
        bool match = false;
        switch (control.aggregation) {
        case Aggregation::any:
            for (unsigned i = 0; i < x.length; i++) match |= j < y.length && x.element[i] == y.element[j];
            break;
        case Aggregation::ranges:
            for (unsigned i = 0; i + 1 < x.length; i += 2)
                match |= j < y.length && x.element[i] <= y.element[j] && y.element[j] <= x.element[i + 1];
            break;
        case Aggregation::each:
            match = j < x.length && j < y.length ? x.element[j] == y.element[j] : j >= x.length && j >= y.length;
            break;
        case Aggregation::ordered:
            match = true;
            for (unsigned i = 0; i < x.length && j + i < n; i++)
                match &= j + i < y.length && x.element[i] == y.element[j + i];
            break;
        }
        result |= unsigned(match) << j;
    }
    return result;
}

void write_mask(X86Context& c, unsigned bits, Control const& control, bool vex) {
    std::array<std::uint8_t, 16> out{};
    unsigned width = control.words ? 2 : 1;
    if (!control.last_or_wide) {
        out[0] = std::uint8_t(bits);
        out[1] = std::uint8_t(bits >> 8);
    } else {
        for (unsigned i = 0; i < control.count(); i++)
            if (bits >> i & 1) std::memset(out.data() + i * width, 0xff, width);
    }
    std::memcpy(c.state.ymm[0].data(), out.data(), 16);
    if (vex) c.state.ymm[0][2] = c.state.ymm[0][3] = 0;
}

} // namespace

namespace helper {

std::uint64_t pcmpstr(X86Context& c, std::uint64_t a, std::uint64_t low, std::uint64_t high) {
    Control control{unsigned(a & 0xff)};
    std::uint64_t second[2] = {low, high};
    Text x = read_text(c.state.ymm[a >> pcmpstr_arg::register_shift & 15].data(), control);
    Text y = read_text(second, control);
    if (a & pcmpstr_arg::explicit_length) {
        limit_by_register(x, c.state.gpr[rax], a & pcmpstr_arg::wide_length);
        limit_by_register(y, c.state.gpr[rdx], a & pcmpstr_arg::wide_length);
    } else {
        limit_by_null(x);
        limit_by_null(y);
    }
    unsigned n = control.count(), all = (1u << n) - 1, bits = aggregate(control, x, y);
    if (control.negative) bits ^= control.masked_negative ? (1u << y.length) - 1 : all;
    bits &= all;
    if (a & pcmpstr_arg::mask_result) {
        write_mask(c, bits, control, a & pcmpstr_arg::vex);
    } else {
        unsigned index = !bits                  ? n
                         : control.last_or_wide ? 31 - unsigned(std::countl_zero(bits))
                                                : unsigned(std::countr_zero(bits));
        c.state.gpr[rcx] = index;
    }
    std::uint64_t flags = 0;
    if (bits) flags |= flag::cf;
    if (y.length < n) flags |= flag::zf;
    if (x.length < n) flags |= flag::sf;
    if (bits & 1) flags |= flag::of;
    return flags;
}

} // namespace helper

} // namespace vmm::tcg::x86
