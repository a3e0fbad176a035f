// Encodings: random instructions by kind, as bytes. What of them a sequence may use is for rules.h to say.
#pragma once
#include "tests/diff/random.h"

#include <cstdint>
#include <vector>

namespace vmm::diff {

// Memory operands address the data pages through two registers that sequences never write.
class Encodings {
public:
    using Bytes = std::vector<std::uint8_t>;
    Encodings(Random& random, bool long_mode) : random_(random), long_mode_(long_mode) {}

    unsigned pointer_a() const { return long_mode_ ? 14 : 3; }
    unsigned pointer_b() const { return long_mode_ ? 15 : 5; }
    // A general register that sequences may write.
    unsigned reg();

    Bytes integer_instruction();
    Bytes plain_instruction();     // without ModRM
    Bytes extension_instruction(); // POPCNT, BMI and their like
    Bytes vector_instruction(bool with_vex);
    Bytes gather_instruction();
    Bytes x87_instruction();
    Bytes legacy_instruction();  // what only 32-bit code has
    Bytes control_instruction(); // MXCSR, x87 control and environment, stack frames
    Bytes garbage_bytes();
    // LEA of a register from [pointer + displacement].
    Bytes lea(unsigned to, unsigned pointer, std::int32_t displacement);
    void immediate(Bytes& out, unsigned size);

private:
    struct Shape {
        bool size16 = false, wide = false, lock = false;
        std::uint8_t prefix = 0;
        unsigned map = 0; // 0: one byte, 1: 0f, 2: 0f38, 3: 0f3a
        std::uint8_t opcode = 0;
        unsigned field = 0, rm = 0;
        bool memory = false;
        unsigned immediate = 0;
    };
    Bytes assemble(Shape const& s);
    // ModRM (and displacement) with `field` in the reg place; returns REX.B to merge.
    std::uint8_t modrm(Bytes& out, unsigned field, bool memory, unsigned rm_register);
    Bytes vex(unsigned map, unsigned pp, std::uint8_t opcode, unsigned field, unsigned vvvv, bool memory, unsigned rm,
              bool w, bool l, bool imm);

    Random& random_;
    bool long_mode_;
};

} // namespace vmm::diff
