#include "tests/diff/generator.h"

#include "tests/diff/encodings.h"
#include "tests/diff/rules.h"

#include <Zydis/Zydis.h>

#include <cstring>

namespace vmm::diff {

namespace {

constexpr unsigned rsp_number = 4;

class Generator {
public:
    Generator(std::uint64_t seed, unsigned families, Backdrop const& backdrop)
        : random_(seed), backdrop_(backdrop), families_(families),
          long_mode_(!(families & legacy32) || !random_.chance(4)), encode_(random_, long_mode_) {
        q_.seed = seed;
        q_.long_mode = long_mode_;
        if (long_mode_)
            ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LONG_64, ZYDIS_STACK_WIDTH_64);
        else
            ZydisDecoderInit(&decoder_, ZYDIS_MACHINE_MODE_LEGACY_32, ZYDIS_STACK_WIDTH_32);
        kept_ = 1u << encode_.pointer_a() | 1u << encode_.pointer_b();
    }

    Sequence run() {
        start_state();
        unsigned wanted = 10 + random_.pick(31);
        for (unsigned tries = 0; q_.instructions.size() < wanted && tries < 2000; ++tries) step();
        track_flags(q_);
        q_.code.push_back(0xcc);
        q_.code_offset = random_.chance(4) ? 0x1000 - random_.pick(unsigned(q_.code.size()) + 1) : random_.pick(0x800);
        q_.start.rip = code_base + q_.code_offset;
        return std::move(q_);
    }

private:
    using Bytes = Encodings::Bytes;

    void start_state() {
        Registers& r = q_.start;
        for (auto& g : r.gpr) g = random_.value();
        r.gpr[rsp_number] = stack_base + 0x1000 + random_.pick(0x100) * 8 - 0x400;
        r.gpr[encode_.pointer_a()] = data_base + 0x800 + random_.pick(256);
        r.gpr[encode_.pointer_b()] = data_base + 0x1000 + random_.pick(64) - 32;
        if (!long_mode_)
            for (unsigned i = 0; i < 16; ++i) r.gpr[i] = i < 8 ? std::uint32_t(r.gpr[i]) : 0;
        r.rflags = 0x202 | (random_.bits() & 0x8d5);
        for (unsigned i = 0; i < 16; ++i)
            for (auto& lane : r.ymm[i]) lane = random_.chance(2) ? random_.floating() : random_.value();
        r.mxcsr = 0x1f80 | (random_.pick(4) << 13) | (random_.chance(4) ? 0x8000 : 0) | (random_.chance(4) ? 0x40 : 0);
        start_x87();
        start_memory(q_.data);
        start_memory(q_.stack);
        for (unsigned pointer : {encode_.pointer_a(), encode_.pointer_b()}) {
            std::size_t const middle = (r.gpr[pointer] - data_base) & ~std::size_t(7);
            for (std::size_t i = middle - 256; i < middle + 256; i += 8) {
                std::uint64_t v = random_.chance(2) ? random_.floating() : random_.value();
                std::memcpy(q_.data.data() + i, &v, 8);
            }
        }
        if (!(families_ & control)) return;
        may_trap_ = random_.chance(6);
        if (may_trap_) r.mxcsr &= ~(std::uint32_t(random_.pick(64)) << 7);
        if (random_.chance(6)) r.fcw &= std::uint16_t(~random_.pick(64));
    }

    template <std::size_t Size> void start_memory(std::array<std::uint8_t, Size>& memory) {
        std::size_t const window = random_.pick(unsigned(backdrop_.words.size() - Size / 8 + 1));
        std::memcpy(memory.data(), backdrop_.words.data() + window, Size);
    }

    void start_x87() {
        Registers& r = q_.start;
        static constexpr std::uint16_t precision[] = {0x000, 0x200, 0x300, 0x300};
        r.fcw = std::uint16_t(0x7f | precision[random_.pick(4)] | random_.pick(4) << 10);
        r.fsw = std::uint16_t(random_.pick(8) << 11);
        r.tags = random_.chance(3) ? 0 : std::uint8_t(random_.bits());
        for (auto& st : r.st) {
            long double v = random_.chance(3) ? (long double)(std::int64_t)random_.value()
                                              : (long double)(double)(std::int64_t)random_.bits() / 12345.0L;
            std::memcpy(st.data(), &v, 10);
            if (random_.chance(8)) {
                std::uint64_t raw = random_.bits();
                std::memcpy(st.data(), &raw, 8);
                st[7] |= 0x80;
            }
        }
    }

    unsigned some_pointer() { return random_.chance(2) ? encode_.pointer_a() : encode_.pointer_b(); }
    Bytes with_long_prefix(Bytes bytes) {
        if (long_mode_) bytes.insert(bytes.begin(), 0x48);
        return bytes;
    }

    // --- taking instructions

    // Decodes, and takes the instruction if its outcome is defined.
    enum class Special { refused, allowed };
    bool add(Bytes const& raw, Special special = Special::refused) {
        ZydisDecodedInstruction d;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        Bytes padded = raw;
        padded.resize(raw.size() + 15, 0x90);
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder_, padded.data(), padded.size(), &d, operands))) return false;
        if (d.length > raw.size()) return false;
        // What only a step that knows its surroundings may use.
        bool const popf = d.mnemonic == ZYDIS_MNEMONIC_POPF || d.mnemonic == ZYDIS_MNEMONIC_POPFD ||
                          d.mnemonic == ZYDIS_MNEMONIC_POPFQ;
        bool branch = popf || d.meta.category == ZYDIS_CATEGORY_COND_BR ||
                      d.meta.category == ZYDIS_CATEGORY_UNCOND_BR || d.meta.category == ZYDIS_CATEGORY_RET;
        if (branch ? special == Special::refused : !allowed(d)) return false;
        if (!operands_allowed(d, operands, kept_)) return false;
        // With unmasked exceptions the flags of horizontal operations depend on how the CPU takes them apart.
        if (may_trap_ && is_horizontal(d.mnemonic)) return false;
        // Whether accesses of 16 bytes and more are checked for alignment is each CPU's choice.
        if (aligned_only_ && checks_alignment_its_way(d.mnemonic)) return false;
        if (splits_lock(d, operands) && !random_.chance(20000)) return false;
        append(raw, d.length, effects(d, operands));
        if (!track_flags(q_)) {
            truncate(q_.instructions.size() - 1);
            return false;
        }
        may_trap_ |= loads_mxcsr(d.mnemonic);
        return true;
    }
    // A locked access across cache lines: hosts make the process wait for those, so they are to be rare.
    bool splits_lock(ZydisDecodedInstruction const& d, ZydisDecodedOperand const* operands) const {
        if (!(d.attributes & ZYDIS_ATTRIB_HAS_LOCK) && d.mnemonic != ZYDIS_MNEMONIC_XCHG) return false;
        for (unsigned i = 0; i < d.operand_count; ++i) {
            auto const& o = operands[i];
            if (o.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
            ZydisRegister base = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o.mem.base);
            if (base < ZYDIS_REGISTER_RAX || base > ZYDIS_REGISTER_R15) return true;
            std::uint64_t at = q_.start.gpr[std::size_t(base - ZYDIS_REGISTER_RAX)] + std::uint64_t(o.mem.disp.value);
            return (at & 63) + o.size / 8u > 64;
        }
        return false;
    }
    void append(Bytes const& raw, unsigned length, Sequence::Instruction insn) {
        insn.offset = unsigned(q_.code.size()), insn.length = length;
        q_.instructions.push_back(insn);
        q_.code.insert(q_.code.end(), raw.begin(), raw.begin() + length);
    }
    // Back to the first `count` instructions.
    void truncate(std::size_t count) {
        if (count >= q_.instructions.size()) return;
        q_.code.resize(q_.instructions[count].offset);
        q_.instructions.resize(count);
    }
    // The displacement byte of a short branch, or the first of four.
    void set_target(std::size_t jump, std::size_t target, unsigned displacement_bytes = 1) {
        auto& insn = q_.instructions[jump];
        insn.target = int(target);
        unsigned to = target < q_.instructions.size() ? q_.instructions[target].offset : unsigned(q_.code.size());
        std::int32_t displacement = std::int32_t(to) - std::int32_t(insn.offset + insn.length);
        std::memcpy(&q_.code[insn.offset + insn.length - displacement_bytes], &displacement, displacement_bytes);
    }

    // --- steps: each adds an instruction or a few that belong together; or none

    void step() {
        unsigned kind = random_.pick(100);
        if (families_ & strings && kind < 4) return string_operation();
        if (families_ & garbage && kind == 4) return void(add(encode_.garbage_bytes()));
        if (families_ & flow && kind < 8 && !nested_) return random_.chance(2) ? loop() : subroutine();
        if (families_ & control && kind < 12) return control_operation();
        if (families_ & sse && kind < 32) return void(add(encode_.vector_instruction(false)));
        if (families_ & avx && kind < 44)
            return random_.chance(10) ? gather() : void(add(encode_.vector_instruction(true)));
        if (families_ & x87 && kind < 54) return void(add(encode_.x87_instruction()));
        if (!(families_ & integer)) return;
        if (kind < 61) return void(add(encode_.extension_instruction()));
        if (kind < 70) return void(add(encode_.plain_instruction()));
        if (kind < 76) return conditional_jump();
        if (kind < 80 && !long_mode_) return void(add(encode_.legacy_instruction()));
        add(encode_.integer_instruction());
    }

    // A string operation with registers that lead somewhere.
    void string_operation() {
        auto pointer = [&](unsigned to) {
            std::int32_t d = random_.chance(10) ? std::int32_t(random_.pick(0x3000)) - 0x1000
                                                : std::int32_t(random_.pick(256)) - 128;
            add(encode_.lea(to, some_pointer(), d));
        };
        pointer(6);
        pointer(7);
        Bytes count{0xb9};
        std::uint32_t n = random_.chance(8) ? random_.pick(5000) : random_.pick(100);
        for (int i = 0; i < 4; ++i) count.push_back(std::uint8_t(n >> (8 * i)));
        add(count);
        if (random_.chance(3)) add({std::uint8_t(0xfc + random_.pick(2))});
        static constexpr std::uint8_t ops[] = {0xa4, 0xa5, 0xa6, 0xa7, 0xaa, 0xab, 0xac, 0xad, 0xae, 0xaf};
        Bytes out;
        if (!random_.chance(4)) out.push_back(random_.chance(2) ? 0xf3 : 0xf2);
        if (random_.chance(4))
            out.push_back(0x66);
        else if (long_mode_ && random_.chance(2))
            out.push_back(0x48);
        out.push_back(ops[random_.pick(10)]);
        add(out);
    }

    // A gather whose indices mostly stay small.
    void gather() {
        Bytes g = encode_.gather_instruction();
        unsigned const index = unsigned(g[5] >> 3 & 7) | (g[1] & 0x40 ? 0 : 8);
        if (!random_.chance(6)) // VPSRLQ index, index, 53 (or VPSRLD by 21)
            add({0xc4, std::uint8_t(0xc1 | (index & 8 ? 0 : 0x20)), std::uint8_t((~index & 15) << 3 | 5),
                 std::uint8_t(g[3] & 1 ? 0x73 : 0x72), std::uint8_t(0xd0 | (index & 7)),
                 std::uint8_t(g[3] & 1 ? 53 : 21)});
        add(g);
    }

    void control_operation() {
        switch (random_.pick(4)) {
        case 0: return flags_from_stack();
        case 1: return image();
        default: add(encode_.control_instruction());
        }
    }
    // PUSH imm32; POPF: mostly without TF.
    void flags_from_stack() {
        std::uint32_t flags = std::uint32_t(random_.bits()) & (random_.chance(8) ? 0x244cd5 : 0xcd5);
        if (random_.chance(12)) flags |= 0x100;
        if (nested_) flags &= ~0x40000u; // not for what the loop's next round begins with
        aligned_only_ |= (flags & 0x40000) != 0;
        Bytes push{0x68};
        for (int i = 0; i < 4; ++i) push.push_back(std::uint8_t(flags >> (8 * i)));
        if (add(push) && !add({0x9d}, Special::allowed)) truncate(q_.instructions.size() - 1);
    }
    // FXSAVE, FXRSTOR, XRSTOR at one of a few aligned places, mostly made fit to be loaded.
    void image() {
        static constexpr unsigned at = 7; // RDI
        if (!add(encode_.lea(at, encode_.pointer_a(), std::int32_t(random_.pick(3)) * 0x200 - 0x280))) return;
        if (!random_.chance(10) && !add(with_long_prefix({0x83, 0xe7, 0xc0}))) return; // AND RDI, -64
        bool const wide = long_mode_ && random_.chance(2);
        auto image_op = [&](unsigned field) {
            Bytes b{0x0f, 0xae, std::uint8_t(field << 3 | at)};
            if (wide) b.insert(b.begin(), 0x48);
            add(b);
        };
        switch (random_.pick(3)) {
        case 0: return image_op(0);
        case 1:
            if (!random_.chance(6)) add({0x81, 0x67, 24, 0xff, 0xff, 0, 0}); // AND dword [RDI+24], FFFF
            return image_op(1);
        default: break;
        }
        auto store = [&](std::uint32_t displacement, std::uint8_t value) { // MOV [RDI+d], value
            Bytes b{0xc7, 0x87};
            for (int i = 0; i < 4; ++i) b.push_back(std::uint8_t(displacement >> (8 * i)));
            b.insert(b.end(), {value, 0, 0, 0});
            add(b);
        };
        if (!random_.chance(6)) add({0x81, 0x67, 24, 0xff, 0xff, 0, 0});
        store(512, std::uint8_t(random_.pick(8)));
        for (unsigned d = 516; d < 536; d += 4) store(d, 0);
        if (!add({0xb8, std::uint8_t(random_.pick(8)), 0, 0, 0}) || !add({0xba, 0, 0, 0, 0})) return;
        std::size_t const masks = q_.instructions.size() - 2;
        image_op(5);
        // Without its component mask it would load what the host alone has.
        if (q_.instructions.size() > masks + 2)
            q_.instructions[masks].needed_by = q_.instructions[masks + 1].needed_by = int(masks + 2);
    }

    // A forward jump over one instruction, which both sides must agree to take.
    void conditional_jump() {
        for (int i = 0; i < 50; ++i) {
            std::size_t jump = q_.instructions.size();
            if (!add({std::uint8_t(0x70 | random_.pick(16)), 0}, Special::allowed)) continue;
            if (add(encode_.integer_instruction())) {
                set_target(jump, q_.instructions.size());
                if (track_flags(q_)) return;
            }
            truncate(jump);
        }
    }

    // Counted down in a register the body leaves alone.
    void loop() {
        std::size_t const start = q_.instructions.size();
        unsigned const counter = long_mode_ ? 13 : 7;
        Bytes set{std::uint8_t(0xb8 | (counter & 7)), std::uint8_t(1 + random_.pick(12)), 0, 0, 0};
        Bytes down{0xff, std::uint8_t(0xc8 | (counter & 7))};
        if (counter & 8) set.insert(set.begin(), 0x41), down.insert(down.begin(), 0x41);
        nested_ = true;
        bool good = add(set);
        std::size_t const first = q_.instructions.size();
        kept_ |= 1u << counter;
        for (unsigned n = 1 + random_.pick(6), tries = 0; good && q_.instructions.size() < first + n && tries < 100;
             ++tries)
            step();
        kept_ &= ~(1u << counter);
        nested_ = false;
        good = good && q_.code.size() - q_.instructions[start].offset < 110 && add(down) &&
               add({0x75, 0}, Special::allowed);
        if (good) {
            std::size_t const jump = q_.instructions.size() - 1;
            q_.instructions[jump - 1].needed_by = q_.instructions[start].needed_by = int(jump);
            set_target(jump, first);
            if (track_flags(q_)) return;
        }
        truncate(start);
    }

    // CALL over a JMP to a body that ends in RET.
    void subroutine() {
        std::size_t const call = q_.instructions.size();
        nested_ = true;
        if (add({0xe8, 0, 0, 0, 0}) && add({0xeb, 0}, Special::allowed)) {
            std::size_t const jump = call + 1, first = call + 2;
            q_.instructions[call].falls_through = q_.instructions[jump].falls_through = false;
            q_.instructions[call].target = int(first);
            kept_ |= 1u << rsp_number;
            for (unsigned n = 1 + random_.pick(5), tries = 0; q_.instructions.size() < first + n && tries < 100;
                 ++tries)
                step();
            kept_ &= ~(1u << rsp_number);
            if (add({0xc3}, Special::allowed)) {
                std::size_t const ret = q_.instructions.size() - 1;
                q_.instructions[ret].falls_through = false;
                q_.instructions[ret].target = int(jump);
                q_.instructions[jump].needed_by = q_.instructions[ret].needed_by = int(call);
                q_.instructions[call].needed_by = int(ret);
                set_target(call, first, 4);
                if (q_.code.size() - q_.instructions[first].offset < 128) {
                    set_target(jump, q_.instructions.size());
                    nested_ = false;
                    if (track_flags(q_)) return;
                }
            }
        }
        nested_ = false;
        truncate(call);
    }

    Random random_;
    Backdrop const& backdrop_;
    unsigned families_;
    bool long_mode_;
    Encodings encode_;
    ZydisDecoder decoder_;
    Sequence q_;
    unsigned kept_ = 0;         // registers no instruction may write
    bool may_trap_ = false;     // SIMD exceptions may be unmasked
    bool aligned_only_ = false; // AC may be set
    bool nested_ = false;       // inside a loop or subroutine: no other
};

} // namespace

Backdrop::Backdrop() {
    Random random(0);
    for (auto& word : words) word = random.chance(3) ? random.floating() : random.value();
}

Sequence generate(std::uint64_t seed, unsigned families, Backdrop const& backdrop) {
    return Generator(seed, families, backdrop).run();
}

} // namespace vmm::diff
