#include "tests/diff/encodings.h"

#include <iterator>

namespace vmm::diff {

unsigned Encodings::reg() {
    if (!long_mode_) {
        static constexpr std::uint8_t free[] = {0, 1, 2, 6, 7};
        return free[random_.pick(5)];
    }
    for (;;) {
        unsigned r = random_.pick(14);
        if (r != 4) return r;
    }
}

std::uint8_t Encodings::modrm(Bytes& out, unsigned field, bool memory, unsigned rm_register) {
    field &= 7;
    if (!memory) {
        out.push_back(std::uint8_t(0xc0 | field << 3 | (rm_register & 7)));
        return rm_register & 8 ? 1 : 0;
    }
    unsigned base = random_.chance(2) ? pointer_a() : pointer_b();
    std::int32_t displacement =
        random_.chance(12) ? std::int32_t(random_.pick(0x3000)) - 0x1000 : std::int32_t(random_.pick(512)) - 256;
    if (random_.chance(3)) displacement &= ~15;
    if (random_.chance(2) && displacement >= -128 && displacement < 128) {
        out.push_back(std::uint8_t(0x40 | field << 3 | (base & 7)));
        out.push_back(std::uint8_t(displacement));
    } else {
        out.push_back(std::uint8_t(0x80 | field << 3 | (base & 7)));
        for (int i = 0; i < 4; ++i) out.push_back(std::uint8_t(displacement >> (8 * i)));
    }
    return base & 8 ? 1 : 0;
}
void Encodings::immediate(Bytes& out, unsigned size) {
    std::uint64_t v = random_.value();
    for (unsigned i = 0; i < size; ++i) out.push_back(std::uint8_t(v >> (8 * i)));
}

Encodings::Bytes Encodings::assemble(Shape const& s) {
    Bytes tail;
    std::uint8_t rex = std::uint8_t((s.wide ? 8 : 0) | (s.field & 8 ? 4 : 0));
    rex |= modrm(tail, s.field, s.memory, s.rm);
    Bytes out;
    if (s.lock) out.push_back(0xf0);
    if (s.size16) out.push_back(0x66);
    if (s.prefix) out.push_back(s.prefix);
    if (long_mode_ && (rex || random_.chance(4))) out.push_back(0x40 | rex);
    if (s.map) out.push_back(0x0f);
    if (s.map == 2) out.push_back(0x38);
    if (s.map == 3) out.push_back(0x3a);
    out.push_back(s.opcode);
    out.insert(out.end(), tail.begin(), tail.end());
    immediate(out, s.immediate);
    return out;
}

Encodings::Bytes Encodings::integer_instruction() {
    Shape s;
    s.size16 = random_.chance(4);
    s.wide = !s.size16 && random_.chance(2);
    s.memory = random_.chance(3);
    s.field = reg();
    s.rm = reg();
    unsigned operand = s.size16 ? 2 : 4;
    switch (random_.pick(22)) {
    case 0:
    case 1:
    case 2:
        s.opcode = std::uint8_t(random_.pick(8) << 3 | random_.pick(4)),
        s.lock = s.memory && !(s.opcode & 2) && s.opcode < 0x38 && random_.chance(4);
        break;
    case 3: s.opcode = 0x81, s.field = random_.pick(8), s.immediate = operand; break;
    case 4: s.opcode = random_.chance(2) ? 0x83 : 0x80, s.field = random_.pick(8), s.immediate = 1; break;
    case 5:
        s.opcode = random_.chance(2) ? 0xfe : 0xff, s.field = random_.pick(2), s.lock = s.memory && random_.chance(3);
        break;
    case 6:
        s.opcode = random_.chance(2) ? 0xf6 : 0xf7, s.field = random_.pick(8),
        s.immediate = s.field > 1        ? 0
                      : s.opcode == 0xf6 ? 1
                                         : operand;
        break;
    case 7:
    case 8: {
        static constexpr std::uint8_t shifts[] = {0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3};
        s.opcode = shifts[random_.pick(6)], s.field = random_.pick(8), s.immediate = s.opcode < 0xd0;
        break;
    }
    case 9: {
        static constexpr std::uint8_t ops[] = {0xa4, 0xa5, 0xac, 0xad};
        s.map = 1, s.opcode = ops[random_.pick(4)], s.immediate = !(s.opcode & 1);
        if (s.size16) s.size16 = false, s.wide = false; // counts above 16 are undefined there
        break;
    }
    case 10: {
        s.map = 1;
        if (random_.chance(2)) {
            s.opcode = 0xba, s.field = 4 + random_.pick(4), s.immediate = 1;
        } else {
            static constexpr std::uint8_t ops[] = {0xa3, 0xab, 0xb3, 0xbb};
            s.opcode = ops[random_.pick(4)];
            s.memory = false; // the bit offset reaches far
        }
        break;
    }
    case 11: s.opcode = std::uint8_t(0x88 + random_.pick(4)); break;
    case 12:
        s.opcode = random_.chance(2) ? 0xc6 : 0xc7, s.field = 0, s.immediate = s.opcode == 0xc6 ? 1 : operand;
        break;
    case 13: s.map = 1, s.opcode = std::uint8_t((random_.chance(2) ? 0xb6 : 0xbe) + random_.pick(2)); break;
    case 14: s.map = 1, s.opcode = std::uint8_t(0x40 + random_.pick(16)); break;
    case 15: s.map = 1, s.opcode = std::uint8_t(0x90 + random_.pick(16)); break;
    case 16:
        s.map = 1, s.opcode = std::uint8_t((random_.chance(2) ? 0xb0 : 0xc0) + random_.pick(2)),
        s.lock = s.memory && random_.chance(3);
        break;
    case 17: s.opcode = std::uint8_t(0x86 + random_.pick(2)); break;
    case 18: s.opcode = 0x8d, s.memory = true; break;
    case 19: s.opcode = random_.chance(2) ? 0x69 : 0x6b, s.immediate = s.opcode == 0x6b ? 1 : operand; break;
    case 20: s.map = 1, s.opcode = 0xaf; break;
    default: s.opcode = 0x63; break;
    }
    return assemble(s);
}

Encodings::Bytes Encodings::plain_instruction() {
    unsigned r = reg();
    std::uint8_t b = r & 8 ? 1 : 0;
    switch (random_.pick(12)) {
    case 0: return {std::uint8_t(0x40 | b), std::uint8_t(0x50 + (r & 7))};
    case 1: return {std::uint8_t(0x40 | b), std::uint8_t(0x58 + (r & 7))};
    case 2: {
        static constexpr std::uint8_t ops[] = {0x98, 0x99, 0x9e, 0x9f, 0xf5, 0xf8, 0xf9, 0xfc, 0xfd, 0x90};
        std::uint8_t op = ops[random_.pick(std::size(ops))];
        if (op <= 0x99 && random_.chance(2)) return {std::uint8_t(random_.chance(2) ? 0x48 : 0x66), op};
        return {op};
    }
    case 3: return {std::uint8_t(0x48 | b), 0x0f, std::uint8_t(0xc8 + (r & 7))};
    case 4: return {std::uint8_t(0x40 | b), 0x0f, std::uint8_t(0xc8 + (r & 7))};
    case 5: {
        Bytes out{std::uint8_t(0x48 | b), std::uint8_t(0xb8 + (r & 7))};
        immediate(out, 8);
        return out;
    }
    case 6: {
        Bytes out{0x68};
        immediate(out, 4);
        return out;
    }
    case 7: return {0x9c};                                                 // pushfq
    case 8: return {std::uint8_t(0x48 | b), std::uint8_t(0x90 + (r & 7))}; // xchg with rax
    case 9: return {0xe8, 0, 0, 0, 0};                                     // call to the next instruction
    case 10: {                                                             // accumulator forms
        Bytes out{std::uint8_t(random_.pick(8) << 3 | 4)};
        immediate(out, 1);
        return out;
    }
    default: {
        Bytes out{0x48, std::uint8_t(random_.pick(8) << 3 | 5)};
        immediate(out, 4);
        return out;
    }
    }
}

Encodings::Bytes Encodings::extension_instruction() { // POPCNT, BMI and their like
    Shape s;
    s.map = 1;
    s.wide = random_.chance(2);
    s.memory = random_.chance(3);
    s.field = reg(), s.rm = reg();
    switch (random_.pick(6)) {
    case 0: s.prefix = 0xf3, s.opcode = 0xb8; return assemble(s);
    case 1: s.prefix = 0xf3, s.opcode = random_.chance(2) ? 0xbc : 0xbd; return assemble(s);
    case 2: s.map = 2, s.prefix = 0xf2, s.opcode = std::uint8_t(0xf0 + random_.pick(2)); return assemble(s);
    case 3: s.map = 2, s.opcode = std::uint8_t(0xf0 + random_.pick(2)), s.memory = true; return assemble(s);
    case 4: s.map = 2, s.prefix = random_.chance(2) ? 0x66 : 0xf3, s.opcode = 0xf6; return assemble(s);
    default: break;
    }
    // VEX: andn/bls*/bzhi/pext/pdep/mulx/bextr/shifts, rorx.
    static constexpr std::uint8_t ops[] = {0xf2, 0xf3, 0xf5, 0xf6, 0xf7};
    std::uint8_t op = ops[random_.pick(5)];
    unsigned pp = op == 0xf2 || op == 0xf3 ? 0 : op == 0xf6 ? 3 : random_.pick(4);
    if (op == 0xf5 && pp == 1) pp = 0;
    unsigned field = op == 0xf3 ? 1 + random_.pick(3) : s.field, map = 2;
    if (random_.chance(8)) op = 0xf0, pp = 3, map = 3;
    return vex(map, pp, op, field, map == 3 ? 0 : reg(), s.memory, s.rm, s.wide, false, map == 3);
}

Encodings::Bytes Encodings::vex(unsigned map, unsigned pp, std::uint8_t opcode, unsigned field, unsigned vvvv,
                                bool memory, unsigned rm, bool w, bool l, bool imm) {
    Bytes tail;
    std::uint8_t b = modrm(tail, field, memory, rm);
    Bytes out{0xc4, std::uint8_t((long_mode_ && field & 8 ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | map),
              std::uint8_t((w ? 0x80 : 0) | (~vvvv & 15) << 3 | (l ? 4 : 0) | pp), opcode};
    out.insert(out.end(), tail.begin(), tail.end());
    if (imm) immediate(out, 1);
    return out;
}

static bool takes_immediate(unsigned map, std::uint8_t opcode) {
    return map == 3 ||
           (map == 1 && ((opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2 || (opcode >= 0xc4 && opcode <= 0xc6)));
}

Encodings::Bytes Encodings::vector_instruction(bool with_vex) {
    static constexpr std::uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};
    unsigned map = 1 + (random_.chance(3) ? 1 + random_.pick(2) : 0), pp = map == 1            ? random_.pick(4)
                                                                           : random_.chance(6) ? random_.pick(4)
                                                                                               : 1;
    std::uint8_t opcode;
    if (map == 1) {
        static constexpr std::uint8_t rows[] = {0x10, 0x20, 0x50, 0x60, 0x70, 0xc0, 0xd0, 0xe0, 0xf0, 0x50, 0xd0, 0xe0};
        opcode = std::uint8_t(rows[random_.pick(12)] + random_.pick(16));
    } else {
        opcode = map == 2 ? std::uint8_t(random_.pick(0x100)) : std::uint8_t(random_.pick(0xe0));
    }
    Shape s{.prefix = prefixes[pp],
            .map = map,
            .opcode = opcode,
            .field = random_.pick(14),
            .rm = random_.pick(14),
            .memory = random_.chance(3)};
    s.wide = random_.chance(4);
    s.immediate = takes_immediate(map, opcode);
    if (!with_vex) return assemble(s);
    return vex(map, pp, opcode, s.field, random_.pick(14), s.memory, s.rm, s.wide, random_.chance(2), s.immediate);
}

Encodings::Bytes Encodings::x87_instruction() {
    Bytes out, tail;
    std::uint8_t op = std::uint8_t(0xd8 + random_.pick(8));
    if (random_.chance(2)) return {op, std::uint8_t(0xc0 + random_.pick(64))};
    std::uint8_t b = modrm(tail, random_.pick(8), true, 0);
    if (long_mode_) out.push_back(std::uint8_t(0x40 | b));
    out.push_back(op);
    out.insert(out.end(), tail.begin(), tail.end());
    return out;
}

// VPGATHERxx, VGATHERxxx with a pointer as base.
Encodings::Bytes Encodings::gather_instruction() {
    unsigned const registers = long_mode_ ? 14 : 8;
    unsigned field = random_.pick(registers), index = random_.pick(registers), base = pointer_a();
    std::int8_t const displacement = std::int8_t(random_.pick(256));
    std::uint8_t const inverted =
        std::uint8_t((field & 8 && long_mode_ ? 0 : 0x80) | (index & 8 ? 0 : 0x40) | (base & 8 ? 0 : 0x20));
    return {0xc4,
            std::uint8_t(inverted | 2),
            std::uint8_t((random_.chance(2) ? 0x80 : 0) | (~random_.pick(registers) & 15) << 3 |
                         (random_.chance(2) ? 4 : 0) | 1),
            std::uint8_t(0x90 + random_.pick(4)),
            std::uint8_t(0x44 | (field & 7) << 3),
            std::uint8_t(random_.pick(4) << 6 | (index & 7) << 3 | (base & 7)),
            std::uint8_t(displacement)};
}

Encodings::Bytes Encodings::legacy_instruction() {
    static constexpr std::uint8_t ops[] = {0x27, 0x2f, 0x37, 0x3f, 0x60, 0xd6, 0xd7};
    switch (random_.pick(5)) {
    case 0: return {std::uint8_t(0x40 + random_.pick(16))}; // INC, DEC
    case 1: return {std::uint8_t(random_.chance(2) ? 0xd4 : 0xd5), std::uint8_t(random_.pick(20))};
    case 2: { // BOUND
        Bytes out{0x62}, tail;
        modrm(tail, reg(), true, 0);
        out.insert(out.end(), tail.begin(), tail.end());
        return out;
    }
    case 3: return {0x66, ops[random_.pick(std::size(ops))]};
    default: return {ops[random_.pick(std::size(ops))]};
    }
}

Encodings::Bytes Encodings::control_instruction() {
    Bytes out, tail;
    auto with_memory = [&](Bytes opcode, unsigned field) {
        std::uint8_t b = modrm(tail, field, true, 0);
        if (long_mode_ && b) out.push_back(std::uint8_t(0x40 | b));
        out.insert(out.end(), opcode.begin(), opcode.end());
        out.insert(out.end(), tail.begin(), tail.end());
        return out;
    };
    switch (random_.pick(7)) {
    case 0: return with_memory({0x0f, 0xae}, 2 + random_.pick(2)); // LDMXCSR, STMXCSR
    case 1: return with_memory({0xd9}, 4 + random_.pick(4));       // FLDENV, FLDCW, FNSTENV, FNSTCW
    case 2: return with_memory({0xdd}, random_.chance(2) ? 4 : 6); // FRSTOR, FNSAVE
    case 3: return {0xc8, std::uint8_t(random_.pick(64)), 0, std::uint8_t(random_.chance(4) ? random_.pick(5) : 0)};
    case 4: return {0xc9};
    case 5: return {0xdb, std::uint8_t(0xe2 + random_.pick(2))}; // FNCLEX, FNINIT
    default: return {0x9b};
    }
}

Encodings::Bytes Encodings::garbage_bytes() {
    Bytes raw(1 + random_.pick(12));
    for (auto& b : raw) b = std::uint8_t(random_.bits());
    return raw;
}

Encodings::Bytes Encodings::lea(unsigned to, unsigned pointer, std::int32_t displacement) {
    Bytes out;
    if (long_mode_) out.push_back(std::uint8_t(0x48 | (to & 8 ? 4 : 0) | (pointer & 8 ? 1 : 0)));
    out.push_back(0x8d);
    out.push_back(std::uint8_t(0x80 | (to & 7) << 3 | (pointer & 7)));
    for (int i = 0; i < 4; ++i) out.push_back(std::uint8_t(displacement >> (8 * i)));
    return out;
}

} // namespace vmm::diff
