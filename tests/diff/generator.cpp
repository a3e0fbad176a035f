#include "tests/diff/generator.h"

#include <Zydis/Zydis.h>

#include <cstring>
#include <random>

namespace vmm::diff {

namespace {

constexpr unsigned data_pointer_a = 14, data_pointer_b = 15; // registers the sequences never write: they address data

class Generator {
public:
    Generator(std::uint64_t seed, unsigned families) : random_(seed), families_(families) {
        q_.seed = seed;
        ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
    }

    Sequence run() {
        start_state();
        unsigned wanted = 10 + pick(31);
        for (unsigned tries = 0; q_.instructions.size() < wanted && tries < 2000; ++tries) step();
        q_.code.push_back(0xcc);
        q_.code_offset = pick(4) == 0 ? 0x1000 - pick(unsigned(q_.code.size()) + 1) : pick(0x800);
        q_.start.rip = code_base + q_.code_offset;
        return std::move(q_);
    }

private:
    using Bytes = std::vector<std::uint8_t>;

    unsigned pick(unsigned n) { return unsigned(random_() % n); }
    bool chance(unsigned in) { return pick(in) == 0; }

    // Values near where arithmetic turns.
    std::uint64_t value() {
        static constexpr std::uint64_t edges[] = {0,
                                                  1,
                                                  2,
                                                  0x7f,
                                                  0x80,
                                                  0xff,
                                                  0x100,
                                                  0x7fff,
                                                  0x8000,
                                                  0xffff,
                                                  0x7fffffff,
                                                  0x80000000,
                                                  0xffffffff,
                                                  0x7fffffffffffffff,
                                                  0x8000000000000000,
                                                  ~0ull,
                                                  31,
                                                  32,
                                                  63,
                                                  64};
        switch (pick(4)) {
        case 0: return edges[pick(std::size(edges))];
        case 1: return edges[pick(std::size(edges))] + pick(5) - 2;
        case 2: return pick(256);
        default: return random_();
        }
    }
    std::uint64_t floating() {
        static constexpr double edges[] = {
            0.0, -0.0,  1.0,  -1.0,         0.5,   1e308, -1e308, 5e-324, 2.2250738585072014e-308,
            3.5, -7.25, 1e16, 2147483647.5, 9.3e18};
        std::uint64_t bits;
        switch (pick(6)) {
        case 0: {
            double d = edges[pick(std::size(edges))];
            std::memcpy(&bits, &d, 8);
            return bits;
        }
        case 1: return chance(2) ? 0x7ff0000000000000 : 0xfff0000000000000;
        case 2: return 0x7ff8000000000000 | random_() >> 20;
        case 3: return 0x7ff0000000000001 | random_() >> 20;
        case 4: {
            float f[2] = {float(edges[pick(std::size(edges))]), float(double(std::int64_t(random_())) / 1e10)};
            std::memcpy(&bits, f, 8);
            return bits;
        }
        default: {
            double d = double(std::int64_t(random_())) / double(1 + pick(1000000));
            std::memcpy(&bits, &d, 8);
            return bits;
        }
        }
    }

    void start_state() {
        Registers& r = q_.start;
        for (auto& g : r.gpr) g = value();
        r.gpr[4] = stack_base + 0x1000 + pick(0x100) * 8 - 0x400;
        r.gpr[data_pointer_a] = data_base + 0x800 + pick(256);
        r.gpr[data_pointer_b] = data_base + 0x1000 + pick(64) - 32;
        r.rflags = 0x202 | (random_() & 0x8d5);
        for (auto& y : r.ymm)
            for (auto& lane : y) lane = chance(2) ? floating() : value();
        r.mxcsr = 0x1f80 | (pick(4) << 13) | (chance(4) ? 0x8000 : 0) | (chance(4) ? 0x40 : 0);
        static constexpr std::uint16_t precision[] = {0x000, 0x200, 0x300, 0x300};
        r.fcw = std::uint16_t(0x7f | precision[pick(4)] | pick(4) << 10);
        unsigned top = pick(8);
        r.fsw = std::uint16_t(top << 11);
        r.tags = chance(3) ? 0 : std::uint8_t(random_());
        for (auto& st : r.st) {
            long double v = chance(3) ? (long double)(std::int64_t)value()
                                      : (long double)(double)(std::int64_t)random_() / 12345.0L;
            std::memcpy(st.data(), &v, 10);
            if (chance(8)) {
                std::uint64_t raw = random_();
                std::memcpy(st.data(), &raw, 8);
                st[7] |= 0x80;
            }
        }
        for (std::size_t i = 0; i < q_.data.size(); i += 8) {
            std::uint64_t v = chance(2) ? floating() : value();
            std::memcpy(q_.data.data() + i, &v, 8);
        }
        for (std::size_t i = 0; i < q_.stack.size(); i += 8) {
            std::uint64_t v = value();
            std::memcpy(q_.stack.data() + i, &v, 8);
        }
    }

    unsigned reg() {
        for (;;) {
            unsigned r = pick(14);
            if (r != 4) return r;
        }
    }

    // ModRM (and SIB, displacement) with `field` in the reg place; returns REX.B/X bits to merge. Memory operands
    // address the data pages through the two pointers.
    std::uint8_t modrm(Bytes& out, unsigned field, bool memory, unsigned rm_register) {
        field &= 7;
        if (!memory) {
            out.push_back(std::uint8_t(0xc0 | field << 3 | (rm_register & 7)));
            return rm_register & 8 ? 1 : 0;
        }
        unsigned base = chance(2) ? data_pointer_a : data_pointer_b;
        std::int32_t displacement = chance(12) ? std::int32_t(pick(0x3000)) - 0x1000 : std::int32_t(pick(512)) - 256;
        if (chance(3)) displacement &= ~15;
        if (chance(2) && displacement >= -128 && displacement < 128) {
            out.push_back(std::uint8_t(0x40 | field << 3 | (base & 7)));
            out.push_back(std::uint8_t(displacement));
        } else {
            out.push_back(std::uint8_t(0x80 | field << 3 | (base & 7)));
            for (int i = 0; i < 4; ++i) out.push_back(std::uint8_t(displacement >> (8 * i)));
        }
        return 1;
    }
    void immediate(Bytes& out, unsigned size) {
        std::uint64_t v = value();
        for (unsigned i = 0; i < size; ++i) out.push_back(std::uint8_t(v >> (8 * i)));
    }

    struct Shape {
        bool size16 = false, wide = false, lock = false;
        std::uint8_t prefix = 0;
        unsigned map = 0; // 0: one byte, 1: 0f, 2: 0f38, 3: 0f3a
        std::uint8_t opcode = 0;
        unsigned field = 0, rm = 0;
        bool memory = false;
        unsigned immediate = 0;
    };
    Bytes assemble(Shape const& s) {
        Bytes tail;
        std::uint8_t rex = std::uint8_t((s.wide ? 8 : 0) | (s.field & 8 ? 4 : 0));
        rex |= modrm(tail, s.field, s.memory, s.rm);
        Bytes out;
        if (s.lock) out.push_back(0xf0);
        if (s.size16) out.push_back(0x66);
        if (s.prefix) out.push_back(s.prefix);
        if (rex || chance(4)) out.push_back(0x40 | rex);
        if (s.map) out.push_back(0x0f);
        if (s.map == 2) out.push_back(0x38);
        if (s.map == 3) out.push_back(0x3a);
        out.push_back(s.opcode);
        out.insert(out.end(), tail.begin(), tail.end());
        immediate(out, s.immediate);
        return out;
    }

    Bytes integer_instruction() {
        Shape s;
        s.size16 = chance(4);
        s.wide = !s.size16 && chance(2);
        s.memory = chance(3);
        s.field = reg();
        s.rm = reg();
        unsigned operand = s.size16 ? 2 : 4;
        switch (pick(22)) {
        case 0:
        case 1:
        case 2:
            s.opcode = std::uint8_t(pick(8) << 3 | pick(4)),
            s.lock = s.memory && !(s.opcode & 2) && s.opcode < 0x38 && chance(4);
            break;
        case 3: s.opcode = 0x81, s.field = pick(8), s.immediate = operand; break;
        case 4: s.opcode = chance(2) ? 0x83 : 0x80, s.field = pick(8), s.immediate = 1; break;
        case 5: s.opcode = chance(2) ? 0xfe : 0xff, s.field = pick(2), s.lock = s.memory && chance(3); break;
        case 6:
            s.opcode = chance(2) ? 0xf6 : 0xf7, s.field = pick(8),
            s.immediate = s.field > 1        ? 0
                          : s.opcode == 0xf6 ? 1
                                             : operand;
            break;
        case 7:
        case 8: {
            static constexpr std::uint8_t shifts[] = {0xc0, 0xc1, 0xd0, 0xd1, 0xd2, 0xd3};
            s.opcode = shifts[pick(6)], s.field = pick(8), s.immediate = s.opcode < 0xd0;
            break;
        }
        case 9: {
            static constexpr std::uint8_t ops[] = {0xa4, 0xa5, 0xac, 0xad};
            s.map = 1, s.opcode = ops[pick(4)], s.immediate = !(s.opcode & 1);
            if (s.size16) s.size16 = false, s.wide = false; // counts above 16 are undefined there
            break;
        }
        case 10: {
            s.map = 1;
            if (chance(2)) {
                s.opcode = 0xba, s.field = 4 + pick(4), s.immediate = 1;
            } else {
                static constexpr std::uint8_t ops[] = {0xa3, 0xab, 0xb3, 0xbb};
                s.opcode = ops[pick(4)];
                s.memory = false; // the bit offset reaches far
            }
            break;
        }
        case 11: s.opcode = std::uint8_t(0x88 + pick(4)); break;
        case 12: s.opcode = chance(2) ? 0xc6 : 0xc7, s.field = 0, s.immediate = s.opcode == 0xc6 ? 1 : operand; break;
        case 13: s.map = 1, s.opcode = std::uint8_t((chance(2) ? 0xb6 : 0xbe) + pick(2)); break;
        case 14: s.map = 1, s.opcode = std::uint8_t(0x40 + pick(16)); break;
        case 15: s.map = 1, s.opcode = std::uint8_t(0x90 + pick(16)); break;
        case 16:
            s.map = 1, s.opcode = std::uint8_t((chance(2) ? 0xb0 : 0xc0) + pick(2)), s.lock = s.memory && chance(3);
            break;
        case 17: s.opcode = std::uint8_t(0x86 + pick(2)); break;
        case 18: s.opcode = 0x8d, s.memory = true; break;
        case 19: s.opcode = chance(2) ? 0x69 : 0x6b, s.immediate = s.opcode == 0x6b ? 1 : operand; break;
        case 20: s.map = 1, s.opcode = 0xaf; break;
        default: s.opcode = 0x63; break;
        }
        return assemble(s);
    }

    Bytes plain_instruction() {
        unsigned r = reg();
        std::uint8_t b = r & 8 ? 1 : 0;
        switch (pick(12)) {
        case 0: return {std::uint8_t(0x40 | b), std::uint8_t(0x50 + (r & 7))};
        case 1: return {std::uint8_t(0x40 | b), std::uint8_t(0x58 + (r & 7))};
        case 2: {
            static constexpr std::uint8_t ops[] = {0x98, 0x99, 0x9e, 0x9f, 0xf5, 0xf8, 0xf9, 0xfc, 0xfd, 0x90};
            std::uint8_t op = ops[pick(std::size(ops))];
            if (op <= 0x99 && chance(2)) return {std::uint8_t(chance(2) ? 0x48 : 0x66), op};
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
            Bytes out{std::uint8_t(pick(8) << 3 | 4)};
            immediate(out, 1);
            return out;
        }
        default: {
            Bytes out{0x48, std::uint8_t(pick(8) << 3 | 5)};
            immediate(out, 4);
            return out;
        }
        }
    }

    Bytes extension_instruction() { // POPCNT, BMI and their like
        Shape s;
        s.map = 1;
        s.wide = chance(2);
        s.memory = chance(3);
        s.field = reg(), s.rm = reg();
        switch (pick(6)) {
        case 0: s.prefix = 0xf3, s.opcode = 0xb8; return assemble(s);
        case 1: s.prefix = 0xf3, s.opcode = chance(2) ? 0xbc : 0xbd; return assemble(s);
        case 2: s.map = 2, s.prefix = 0xf2, s.opcode = std::uint8_t(0xf0 + pick(2)); return assemble(s);
        case 3: s.map = 2, s.opcode = std::uint8_t(0xf0 + pick(2)), s.memory = true; return assemble(s);
        case 4: s.map = 2, s.prefix = chance(2) ? 0x66 : 0xf3, s.opcode = 0xf6; return assemble(s);
        default: break;
        }
        // VEX: andn/bls*/bzhi/pext/pdep/mulx/bextr/shifts, rorx.
        static constexpr std::uint8_t ops[] = {0xf2, 0xf3, 0xf5, 0xf6, 0xf7};
        std::uint8_t op = ops[pick(5)];
        unsigned pp = op == 0xf2 || op == 0xf3 ? 0 : op == 0xf6 ? 3 : pick(4);
        if (op == 0xf5 && pp == 1) pp = 0;
        unsigned field = op == 0xf3 ? 1 + pick(3) : s.field, map = 2;
        if (chance(8)) op = 0xf0, pp = 3, map = 3;
        return vex(map, pp, op, field, map == 3 ? 0 : reg(), s.memory, s.rm, s.wide, false, map == 3);
    }

    Bytes vex(unsigned map, unsigned pp, std::uint8_t opcode, unsigned field, unsigned vvvv, bool memory, unsigned rm,
              bool w, bool l, bool imm) {
        Bytes tail;
        std::uint8_t b = modrm(tail, field, memory, rm);
        Bytes out{0xc4, std::uint8_t((field & 8 ? 0 : 0x80) | 0x40 | (b ? 0 : 0x20) | map),
                  std::uint8_t((w ? 0x80 : 0) | (~vvvv & 15) << 3 | (l ? 4 : 0) | pp), opcode};
        out.insert(out.end(), tail.begin(), tail.end());
        if (imm) immediate(out, 1);
        return out;
    }

    static bool takes_immediate(unsigned map, std::uint8_t opcode) {
        return map == 3 || (map == 1 && ((opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2 ||
                                         (opcode >= 0xc4 && opcode <= 0xc6)));
    }

    Bytes vector_instruction(bool with_vex) {
        static constexpr std::uint8_t prefixes[] = {0, 0x66, 0xf3, 0xf2};
        unsigned map = 1 + (chance(3) ? 1 + pick(2) : 0), pp = map == 1 ? pick(4) : chance(6) ? pick(4) : 1;
        std::uint8_t opcode;
        if (map == 1) {
            static constexpr std::uint8_t rows[] = {0x10, 0x20, 0x50, 0x60, 0x70, 0xc0,
                                                    0xd0, 0xe0, 0xf0, 0x50, 0xd0, 0xe0};
            opcode = std::uint8_t(rows[pick(12)] + pick(16));
        } else {
            opcode = map == 2 ? std::uint8_t(pick(0x100)) : std::uint8_t(pick(0xe0));
        }
        Shape s{.prefix = prefixes[pp],
                .map = map,
                .opcode = opcode,
                .field = pick(14),
                .rm = pick(14),
                .memory = chance(3)};
        s.wide = chance(4);
        s.immediate = takes_immediate(map, opcode);
        if (!with_vex) return assemble(s);
        return vex(map, pp, opcode, s.field, pick(14), s.memory, s.rm, s.wide, chance(2), s.immediate);
    }

    Bytes x87_instruction() {
        Bytes out, tail;
        std::uint8_t op = std::uint8_t(0xd8 + pick(8));
        if (chance(2)) return {op, std::uint8_t(0xc0 + pick(64))};
        std::uint8_t b = modrm(tail, pick(8), true, 0);
        out = {std::uint8_t(0x40 | b), op};
        out.insert(out.end(), tail.begin(), tail.end());
        return out;
    }

    // A string operation with registers that lead somewhere: several instructions at once.
    void string_operation() {
        auto pointer = [&](unsigned to, unsigned from) { // lea to, [from + disp32]
            Bytes out{std::uint8_t(0x49), 0x8d, std::uint8_t(0x80 | to << 3 | (from & 7))};
            std::int32_t d = std::int32_t(pick(256)) - 128;
            for (int i = 0; i < 4; ++i) out.push_back(std::uint8_t(d >> (8 * i)));
            add(out);
        };
        pointer(6, chance(2) ? data_pointer_a : data_pointer_b);
        pointer(7, chance(2) ? data_pointer_a : data_pointer_b);
        Bytes count{0xb9};
        std::uint32_t n = chance(8) ? pick(5000) : pick(100);
        for (int i = 0; i < 4; ++i) count.push_back(std::uint8_t(n >> (8 * i)));
        add(count);
        if (chance(3)) add({std::uint8_t(0xfc + pick(2))});
        static constexpr std::uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
        Bytes out;
        if (!chance(4)) out.push_back(chance(2) ? 0xf3 : 0xf2);
        if (chance(4))
            out.push_back(0x66);
        else if (chance(2))
            out.push_back(0x48);
        out.push_back(ops[pick(10)]);
        add(out);
    }

    // Decodes, and takes the instruction if its outcome is defined.
    enum class Jump { refused, allowed };
    bool add(Bytes const& raw, Jump jump = Jump::refused) {
        ZydisDecodedInstruction d;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        Bytes padded = raw;
        padded.resize(raw.size() + 15, 0x90);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_, padded.data(), padded.size(), &d, operands))) return false;
        if (d.length > raw.size()) return false;
        bool branch = d.meta.category == ZYDIS_CATEGORY_COND_BR;
        if (branch ? jump == Jump::refused : !allowed(d)) return false;
        if (!operands_allowed(d, operands)) return false;
        std::uint64_t undefined = d.cpu_flags->undefined & 0xcd5;
        std::uint64_t written = d.cpu_flags->modified | d.cpu_flags->set_0 | d.cpu_flags->set_1;
        append(raw, d.length,
               {.tested = d.cpu_flags->tested & 0xcd5,
                .defined = may_leave_flags(d) ? 0 : written & 0xcd5 & ~undefined,
                .undefined = undefined | also_undefined(d.mnemonic),
                .mmx_store = stores_mmx(d, operands)});
        if (track_flags(q_)) return true;
        remove_last();
        track_flags(q_);
        return false;
    }
    void append(Bytes const& raw, unsigned length, Sequence::Instruction insn) {
        insn.offset = unsigned(q_.code.size()), insn.length = length;
        q_.instructions.push_back(insn);
        q_.code.insert(q_.code.end(), raw.begin(), raw.begin() + length);
    }
    void remove_last() {
        q_.code.resize(q_.instructions.back().offset);
        q_.instructions.pop_back();
    }

    static bool stores_mmx(ZydisDecodedInstruction const& d, ZydisDecodedOperand const* operands) {
        bool mmx = false, store = false;
        for (unsigned i = 0; i < d.operand_count; ++i) {
            auto const& o = operands[i];
            mmx |= o.type == ZYDIS_OPERAND_TYPE_REGISTER && ZydisRegisterGetClass(o.reg.value) == ZYDIS_REGCLASS_MMX;
            store |= o.type == ZYDIS_OPERAND_TYPE_MEMORY && (o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE);
        }
        return mmx && store;
    }

    // Shifts by 0 and repetitions of 0 elements change no flag.
    static bool may_leave_flags(ZydisDecodedInstruction const& d) {
        if (d.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE)) return true;
        switch (d.mnemonic) {
        case ZYDIS_MNEMONIC_SHL:
        case ZYDIS_MNEMONIC_SHR:
        case ZYDIS_MNEMONIC_SAR:
        case ZYDIS_MNEMONIC_SHLD:
        case ZYDIS_MNEMONIC_SHRD:
        case ZYDIS_MNEMONIC_ROL:
        case ZYDIS_MNEMONIC_ROR:
        case ZYDIS_MNEMONIC_RCL:
        case ZYDIS_MNEMONIC_RCR: return true;
        default: return false;
        }
    }

    // Shifts by a count that is not known to be 0 or 1 leave flags undefined that a count of 0 keeps.
    static std::uint64_t also_undefined(ZydisMnemonic mnemonic) {
        switch (mnemonic) {
        case ZYDIS_MNEMONIC_SHL:
        case ZYDIS_MNEMONIC_SHR:
        case ZYDIS_MNEMONIC_SAR:
        case ZYDIS_MNEMONIC_SHLD:
        case ZYDIS_MNEMONIC_SHRD: return 0x811; // OF, AF; CF for counts beyond the width
        case ZYDIS_MNEMONIC_ROL:
        case ZYDIS_MNEMONIC_ROR:
        case ZYDIS_MNEMONIC_RCL:
        case ZYDIS_MNEMONIC_RCR: return 0x800;
        default: return 0;
        }
    }

    static bool allowed(ZydisDecodedInstruction const& d) {
        switch (d.meta.category) {
        case ZYDIS_CATEGORY_SYSTEM:
        case ZYDIS_CATEGORY_SYSCALL:
        case ZYDIS_CATEGORY_SYSRET:
        case ZYDIS_CATEGORY_INTERRUPT:
        case ZYDIS_CATEGORY_IO:
        case ZYDIS_CATEGORY_IOSTRINGOP:
        case ZYDIS_CATEGORY_XSAVE:
        case ZYDIS_CATEGORY_XSAVEOPT:
        case ZYDIS_CATEGORY_RDRAND:
        case ZYDIS_CATEGORY_RDSEED:
        case ZYDIS_CATEGORY_RDWRFSGS:
        case ZYDIS_CATEGORY_VTX:
        case ZYDIS_CATEGORY_UNCOND_BR:
        case ZYDIS_CATEGORY_RET:
        case ZYDIS_CATEGORY_CET:
        case ZYDIS_CATEGORY_KMASK:
        case ZYDIS_CATEGORY_AVX512:
        case ZYDIS_CATEGORY_SEGOP: return false;
        default: break;
        }
        if (d.encoding == ZYDIS_INSTRUCTION_ENCODING_EVEX || d.encoding == ZYDIS_INSTRUCTION_ENCODING_XOP ||
            d.encoding == ZYDIS_INSTRUCTION_ENCODING_3DNOW || d.encoding == ZYDIS_INSTRUCTION_ENCODING_MVEX)
            return false;
        switch (d.meta.isa_set) {
        case ZYDIS_ISA_SET_GFNI:
        case ZYDIS_ISA_SET_AVX_GFNI:
        case ZYDIS_ISA_SET_VAES:
        case ZYDIS_ISA_SET_VPCLMULQDQ:
        case ZYDIS_ISA_SET_AVX_VNNI:
        case ZYDIS_ISA_SET_FMA4:
        case ZYDIS_ISA_SET_SSE4A:
        case ZYDIS_ISA_SET_XSAVEC:
        case ZYDIS_ISA_SET_XSAVES:
        case ZYDIS_ISA_SET_RDPID:
        case ZYDIS_ISA_SET_MOVDIR:
        case ZYDIS_ISA_SET_WAITPKG:
        case ZYDIS_ISA_SET_ENQCMD:
        case ZYDIS_ISA_SET_CLDEMOTE:
        case ZYDIS_ISA_SET_PREFETCHWT1: return false;
        default: break;
        }
        switch (d.mnemonic) {
        case ZYDIS_MNEMONIC_CPUID:
        case ZYDIS_MNEMONIC_RDTSC:
        case ZYDIS_MNEMONIC_HLT:
        case ZYDIS_MNEMONIC_FNSTENV: // instruction and operand pointers
        case ZYDIS_MNEMONIC_FNSAVE:
        case ZYDIS_MNEMONIC_FXSAVE:
        case ZYDIS_MNEMONIC_FXSAVE64:
        case ZYDIS_MNEMONIC_FXRSTOR:
        case ZYDIS_MNEMONIC_FXRSTOR64:
        case ZYDIS_MNEMONIC_FLDENV:
        case ZYDIS_MNEMONIC_FRSTOR:
        case ZYDIS_MNEMONIC_POPF:
        case ZYDIS_MNEMONIC_POPFQ:
        case ZYDIS_MNEMONIC_LDMXCSR: // random masks; unmasked exceptions have their own test
        case ZYDIS_MNEMONIC_VLDMXCSR:
        case ZYDIS_MNEMONIC_FLDCW:
        case ZYDIS_MNEMONIC_LEAVE:
        case ZYDIS_MNEMONIC_ENTER: return false;
        default: return true;
        }
    }

    // Results undefined for some operand values, and writes to registers the sequence lives on.
    static bool operands_allowed(ZydisDecodedInstruction const& d, ZydisDecodedOperand const* operands) {
        for (unsigned i = 0; i < d.operand_count; ++i) {
            ZydisDecodedOperand const& o = operands[i];
            if (o.type == ZYDIS_OPERAND_TYPE_MEMORY && o.mem.segment != ZYDIS_REGISTER_DS &&
                o.mem.segment != ZYDIS_REGISTER_SS && o.mem.segment != ZYDIS_REGISTER_ES)
                return false;
            if (o.type != ZYDIS_OPERAND_TYPE_REGISTER || !(o.actions & ZYDIS_OPERAND_ACTION_MASK_WRITE)) continue;
            ZydisRegister whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o.reg.value);
            if (whole == ZYDIS_REGISTER_R14 || whole == ZYDIS_REGISTER_R15) return false;
            if (whole == ZYDIS_REGISTER_RSP && o.visibility == ZYDIS_OPERAND_VISIBILITY_EXPLICIT) return false;
        }
        if (d.mnemonic == ZYDIS_MNEMONIC_BSF || d.mnemonic == ZYDIS_MNEMONIC_BSR) return d.operand_width != 16;
        if ((d.mnemonic == ZYDIS_MNEMONIC_SHLD || d.mnemonic == ZYDIS_MNEMONIC_SHRD ||
             d.mnemonic == ZYDIS_MNEMONIC_BSWAP) &&
            d.operand_width == 16)
            return false;
        return true;
    }

    void step() {
        unsigned kind = pick(100);
        if (families_ & strings && kind < 4) return string_operation();
        if (families_ & garbage && kind == 4) {
            Bytes raw(1 + pick(12));
            for (auto& b : raw) b = std::uint8_t(random_());
            add(raw);
            return;
        }
        if (families_ & sse && kind < 30) return void(add(vector_instruction(false)));
        if (families_ & avx && kind < 42) return void(add(vector_instruction(true)));
        if (families_ & x87 && kind < 52) return void(add(x87_instruction()));
        if (!(families_ & integer)) return;
        if (kind < 60) return void(add(extension_instruction()));
        if (kind < 70) return void(add(plain_instruction()));
        if (kind < 76) return conditional_jump();
        add(integer_instruction());
    }

    // A forward jump over one instruction, which both sides must agree to take.
    void conditional_jump() {
        for (int i = 0; i < 50; ++i) {
            std::size_t jump = q_.instructions.size();
            if (!add({std::uint8_t(0x70 | pick(16)), 0}, Jump::allowed)) continue;
            if (!add(integer_instruction())) {
                remove_last();
                continue;
            }
            set_target(jump, q_.instructions.size());
            if (track_flags(q_)) return;
            remove_last();
            remove_last();
            track_flags(q_);
        }
    }
    void set_target(std::size_t jump, std::size_t target) {
        auto& insn = q_.instructions[jump];
        insn.target = int(target);
        unsigned to = target < q_.instructions.size() ? q_.instructions[target].offset : unsigned(q_.code.size());
        q_.code[insn.offset + insn.length - 1] = std::uint8_t(to - insn.offset - insn.length);
    }

    std::mt19937_64 random_;
    unsigned families_;
    ZydisDecoder decoder_;
    Sequence q_;
};

} // namespace

Sequence generate(std::uint64_t seed, unsigned families) { return Generator(seed, families).run(); }

} // namespace vmm::diff
