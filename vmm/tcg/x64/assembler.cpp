#include "vmm/tcg/x64/assembler.h"

namespace vmm::tcg::x64 {

using ir::VecMap;
using ir::VecPrefix;

// `rex`: there must be one even if it has no bits (SPL to DIL).
void Assembler::prefixes(Code& code, Reg const& reg, unsigned rex_bits, bool rex) {
    if (reg.isBit(16)) code.add(0x66);
    if (reg.isBit(64)) rex_bits |= 8;
    if (reg.getIdx() >= 8) rex_bits |= 4;
    if (rex_bits || rex) code.add(0x40 | rex_bits);
}

// ModRM byte and what follows it.
void Assembler::address(Code& code, int reg, int base, int index, int shift, std::int32_t displacement) {
    bool const sib = index >= 0 || (base & 7) == host::rsp;
    // A displacement is always given when base is rbp/r13, whose mod 0 form means something else.
    unsigned const mod = displacement == 0 && (base & 7) != host::rbp ? 0
                         : displacement == std::int8_t(displacement)  ? 1
                                                                      : 2;
    code.add(mod << 6 | unsigned(reg & 7) << 3 | (sib ? 4 : unsigned(base & 7)));
    if (sib) code.add(unsigned(shift) << 6 | (index >= 0 ? unsigned(index & 7) : 4) << 3 | unsigned(base & 7));
    if (mod == 1) code.add(unsigned(displacement));
    if (mod == 2) code.add_word(std::uint32_t(displacement));
}

void Assembler::lea(int d, int base, int index, int shift, std::int32_t displacement) {
    Code code(*this);
    code.add(0x48 | (d >= 8 ? 4 : 0) | (index >= 8 ? 2 : 0) | (base >= 8 ? 1 : 0)), code.add(0x8d);
    address(code, d, base, index, shift, displacement);
    code.finish();
}

bool Assembler::memory(unsigned opcode, Reg const& reg, Address const& rm) {
    if (rm.getMode() != Address::M_ModRM) return false;
    Xbyak::RegExp const e = rm.getRegExp(false);
    Reg const &base = e.getBase(), &index = e.getIndex();
    auto const displacement = std::int64_t(e.getDisp());
    bool const indexed = index.getBit() != 0;
    if (!base.isBit(64) || (indexed && !index.isBit(64)) || displacement != std::int32_t(displacement)) return false;
    int const b = base.getIdx(), x = indexed ? index.getIdx() : -1;
    Code code(*this);
    prefixes(code, reg, (b >= 8 ? 1u : 0u) | (x >= 8 ? 2u : 0u), reg.isExt8bit());
    code.add(opcode | !reg.isBit(8));
    address(code, reg.getIdx(), b, x, indexed ? __builtin_ctz(unsigned(e.getScale())) : 0, std::int32_t(displacement));
    code.finish();
    return true;
}

void Assembler::registers(unsigned opcode, Reg const& reg, Reg const& rm) {
    VMM_ASSERT(reg.getBit() == rm.getBit());
    Code code(*this);
    unsigned const r = unsigned(rm.getIdx());
    prefixes(code, reg, r >= 8, reg.isExt8bit() || rm.isExt8bit());
    code.add(opcode | !reg.isBit(8)), code.add(0xc0 | (unsigned(reg.getIdx()) & 7) << 3 | (r & 7));
    code.finish();
}

bool Assembler::immediate(unsigned operation, Reg const& reg, std::uint32_t imm) {
    if (!reg.isBit(32 | 64)) return false;
    bool const is_short = imm == std::uint32_t(std::int8_t(imm));
    unsigned const r = unsigned(reg.getIdx());
    Code code(*this);
    unsigned const rex_bits = (reg.isBit(64) ? 8u : 0u) | (r >= 8 ? 1u : 0u);
    if (rex_bits) code.add(0x40 | rex_bits);
    if (!is_short && r == host::rax)
        code.add(operation * 8 + 5);
    else
        code.add(is_short ? 0x83 : 0x81), code.add(0xc0 | operation << 3 | (r & 7));
    if (is_short)
        code.add(imm);
    else
        code.add_word(imm);
    code.finish();
    return true;
}

void Assembler::rotate_right(int d, int s, unsigned count) {
    Code code(*this);
    code.add(0xc4), code.add((d >= 8 ? 0 : 0x80) | 0x40 | (s >= 8 ? 0 : 0x20) | 3), code.add(0x7b), code.add(0xf0);
    code.add(0xc0 | unsigned(d & 7) << 3 | unsigned(s & 7)), code.add(count);
    code.finish();
}

void Assembler::modrm(int reg_field, Rm rm) {
    int reg_bits = (reg_field & 7) << 3;
    if (!rm.memory) return db(0xc0 | reg_bits | (rm.reg & 7));
    bool sib = rm.index >= 0 || (rm.reg & 7) == host::rsp;
    // A displacement is always given when base is rbp/r13, whose mod 0 form means something else.
    int mod = rm.displacement == 0 && (rm.reg & 7) != host::rbp ? 0
              : rm.displacement == std::int8_t(rm.displacement) ? 1
                                                                : 2;
    db(mod << 6 | reg_bits | (sib ? 4 : rm.reg & 7));
    if (sib) db((rm.index >= 0 ? rm.index & 7 : 4) << 3 | (rm.reg & 7));
    if (mod == 1) db(std::uint8_t(rm.displacement));
    if (mod == 2) dd(std::uint32_t(rm.displacement));
}

void Assembler::vex(VecPrefix prefix, VecMap map, std::uint8_t opcode, bool w, bool wide, int reg_field, int vvvv,
                    Rm rm) {
    bool r = reg_field >= 8, b = rm.reg >= 8, x = rm.index >= 8;
    int pp = prefix == VecPrefix::np ? 0 : prefix == VecPrefix::p66 ? 1 : prefix == VecPrefix::pf3 ? 2 : 3;
    int tail = (~vvvv & 15) << 3 | (wide ? 4 : 0) | pp;
    if (!b && !x && !w && map == VecMap::m0f) {
        db(0xc5), db((r ? 0 : 0x80) | tail);
    } else {
        db(0xc4), db((r ? 0 : 0x80) | (x ? 0 : 0x40) | (b ? 0 : 0x20) | int(map)), db((w ? 0x80 : 0) | tail);
    }
    db(opcode);
    modrm(reg_field, rm);
}

void Assembler::legacy(VecPrefix prefix, VecMap map, std::uint8_t opcode, bool w, int reg_field, Rm rm) {
    if (prefix == VecPrefix::p66) db(0x66);
    if (prefix == VecPrefix::pf3) db(0xf3);
    if (prefix == VecPrefix::pf2) db(0xf2);
    int rex_bits = (w ? 8 : 0) | (reg_field >= 8 ? 4 : 0) | (rm.index >= 8 ? 2 : 0) | (rm.reg >= 8 ? 1 : 0);
    if (rex_bits) db(0x40 | rex_bits);
    db(0x0f);
    if (map == VecMap::m38) db(0x38);
    if (map == VecMap::m3a) db(0x3a);
    db(opcode);
    modrm(reg_field, rm);
}

void Assembler::vector_load(unsigned bytes, int x, Rm from) {
    switch (bytes) {
    case 4: return vex(VecPrefix::p66, VecMap::m0f, 0x6e, false, false, x, 0, from); // vmovd
    case 8: return vex(VecPrefix::pf3, VecMap::m0f, 0x7e, false, false, x, 0, from); // vmovq
    default: return vex(VecPrefix::np, VecMap::m0f, 0x10, false, bytes == 32, x, 0, from);
    }
}

void Assembler::vector_store(unsigned bytes, Rm to, int x) {
    switch (bytes) {
    case 4: return vex(VecPrefix::p66, VecMap::m0f, 0x7e, false, false, x, 0, to);
    case 8: return vex(VecPrefix::p66, VecMap::m0f, 0xd6, false, false, x, 0, to);
    default: return vex(VecPrefix::np, VecMap::m0f, 0x11, false, bytes == 32, x, 0, to);
    }
}

} // namespace vmm::tcg::x64
