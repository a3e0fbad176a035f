// Every vector operation against the host CPU's own instruction, encoded as its table row says. VMM_VECTOR_ROUNDS sets
// how many operand sets each encoding gets (default 400); a failure prints the seed and operands.
#include "vmm/tcg/ir/vec_ops.h"

#include <gtest/gtest.h>
#include <xbyak/xbyak.h>
#include <xbyak/xbyak_util.h>

#include <cstdlib>
#include <cstring>
#include <random>

namespace {

using namespace vmm::tcg::ir;

struct Operands {
    alignas(32) std::uint8_t a[32], b[32], c[32], result[32];
    std::uint64_t gpr = 0, gpr_result = 0, flags = 0;
    std::uint32_t mxcsr = 0x1f80, mxcsr_out = 0, host_mxcsr = 0x1f80;
};

enum class Encoding { legacy, vex128, vex256 };

// The operation on xmm1 = a, xmm2 = b, xmm0 = c, rax = general register operand; result in xmm1 (legacy) or xmm3, or
// rax.
class Native : public Xbyak::CodeGenerator {
public:
    Native(VecInfo const& info, Encoding encoding, std::uint8_t imm) : info_(info), encoding_(encoding) {
        bool vex = encoding != Encoding::legacy;
        auto at = [&](std::size_t offset) { return ptr[rdi + offset]; };
        ldmxcsr(at(offsetof(Operands, mxcsr)));
        for (auto [reg, offset] :
             {std::pair{1, offsetof(Operands, a)}, {2, offsetof(Operands, b)}, {0, offsetof(Operands, c)}}) {
            if (vex)
                vmovups(Xbyak::Ymm(reg), at(offset));
            else
                movups(Xbyak::Xmm(reg), at(offset));
        }
        mov(rax, at(offsetof(Operands, gpr)));
        operation(imm);
        int result = vex && info.form != VecForm::shift ? 3 : 1;
        if (info.form == VecForm::fused) result = 1;
        if (vex && info.form == VecForm::shift) result = 3;
        if (!vex && info.form == VecForm::store_form) result = 1;
        pushfq();
        pop(rcx);
        mov(at(offsetof(Operands, flags)), rcx);
        mov(at(offsetof(Operands, gpr_result)), rax);
        if (vex)
            vmovups(at(offsetof(Operands, result)), Xbyak::Ymm(result));
        else
            movups(at(offsetof(Operands, result)), Xbyak::Xmm(result));
        stmxcsr(at(offsetof(Operands, mxcsr_out)));
        ldmxcsr(at(offsetof(Operands, host_mxcsr)));
        if (vex) vzeroupper();
        ret();
    }
    void run(Operands& o) { getCode<void (*)(Operands*)>()(&o); }

private:
    void operation(std::uint8_t imm) {
        bool vex = encoding_ != Encoding::legacy;
        int result = vex ? 3 : 1, reg = result, rm = 2, vvvv = 0;
        bool has_imm = info_.immediate;
        switch (info_.form) {
        case VecForm::unary: rm = 1; break;
        case VecForm::binary: vvvv = 1; break;
        case VecForm::shift:
            reg = info_.digit;
            rm = 1;
            vvvv = result;
            break;
        case VecForm::mask: vvvv = 1; break;
        case VecForm::fused:
            reg = 1;
            vvvv = 2;
            rm = 0;
            break;
        case VecForm::to_gpr:
            reg = 0;
            rm = 1;
            break;
        case VecForm::to_gpr_rm:
            reg = 1;
            rm = 0;
            break;
        case VecForm::from_gpr:
            vvvv = 1;
            rm = 0;
            break;
        case VecForm::compare: reg = 1; break;
        case VecForm::store_form:
            reg = 1;
            rm = 3;
            break;
        }
        // movd and movq have no second source.
        if (info_.form == VecForm::from_gpr && info_.opcode == 0x6e) vvvv = 0;
        bool masked_vex = vex && info_.form == VecForm::mask;
        auto opcode = info_.opcode;
        auto map = info_.map;
        if (masked_vex) { // the mask register goes into the immediate, the opcode is another
            opcode = opcode == 0x10 ? 0x4c : opcode == 0x14 ? 0x4a : 0x4b;
            map = VecMap::m3a;
            imm = 0; // xmm0
            has_imm = true;
        }
        if (vex) {
            db(0xc4);
            db(0xe0 | int(map));
            db(int(info_.w) << 7 | (~vvvv & 15) << 3 | (encoding_ == Encoding::vex256) << 2 |
               int(info_.prefix == VecPrefix::p66   ? 1
                   : info_.prefix == VecPrefix::pf3 ? 2
                   : info_.prefix == VecPrefix::pf2 ? 3
                                                    : 0));
        } else {
            if (info_.prefix == VecPrefix::p66) db(0x66);
            if (info_.prefix == VecPrefix::pf3) db(0xf3);
            if (info_.prefix == VecPrefix::pf2) db(0xf2);
            if (info_.w) db(0x48);
            db(0x0f);
            if (map == VecMap::m38) db(0x38);
            if (map == VecMap::m3a) db(0x3a);
        }
        db(opcode);
        db(0xc0 | reg << 3 | rm);
        if (has_imm) db(imm);
    }
    VecInfo const& info_;
    Encoding encoding_;
};

std::mt19937_64 make_random(unsigned op, unsigned encoding) { return std::mt19937_64(op * 16 + encoding + 1); }

// Lanes of one kind or another, edges often.
void fill(std::mt19937_64& random, std::uint8_t* p) {
    static constexpr std::uint32_t floats[] = {0,          0x80000000, 1,          0x80000001, 0x007fffff, 0x00800000,
                                               0x7f800000, 0xff800000, 0x7fc00001, 0xffc12345, 0x7f800001, 0xffa00000,
                                               0x3f800000, 0xbf800000, 0x7f7fffff, 0x4f000000, 0xcf000000, 0x3f000000,
                                               0x34000000, 0x4b000001, 0x40490fdb, 0x5f000000};
    static constexpr std::uint64_t doubles[] = {0,
                                                0x8000000000000000,
                                                1,
                                                0x8000000000000001,
                                                0x000fffffffffffff,
                                                0x0010000000000000,
                                                0x7ff0000000000000,
                                                0xfff0000000000000,
                                                0x7ff8000000000001,
                                                0xfff8123456789abc,
                                                0x7ff0000000000001,
                                                0xfff4000000000000,
                                                0x3ff0000000000000,
                                                0xbff0000000000000,
                                                0x7fefffffffffffff,
                                                0x41e0000000000000,
                                                0xc1e0000000000000,
                                                0x43e0000000000000,
                                                0x3fe0000000000000,
                                                0x36a0000000000000,
                                                0x47efffffe0000000,
                                                0x380fffffffffffff};
    unsigned kind = unsigned(random() % 6);
    for (unsigned i = 0; i < 32; i += 8) {
        std::uint64_t v = random();
        if (kind == 1 || (kind == 5 && random() & 1))
            v = floats[random() % std::size(floats)] | std::uint64_t(floats[random() % std::size(floats)]) << 32;
        if (kind == 2 || (kind == 5 && random() & 1)) v = doubles[random() % std::size(doubles)];
        if (kind == 3) {
            float f[2] = {float(std::int32_t(random())) / 3.f, float(int(random() % 2000) - 1000) / 4.f};
            std::memcpy(&v, f, 8);
        }
        if (kind == 4) {
            double d = double(int(random() % 200000) - 100000) / 8 * (random() & 1 ? 1 : 1e9);
            std::memcpy(&v, &d, 8);
        }
        std::memcpy(p + i, &v, 8);
    }
    if (random() % 8 == 0) std::memset(p, random() & 1 ? 0xff : 0, 32);
    if (random() % 4 == 0) p[0] = std::uint8_t(random() % 70), std::memset(p + 1, 0, 7); // shift counts
}

std::string hex(std::uint8_t const* p, unsigned n) {
    std::string s;
    char text[4];
    for (unsigned i = n; i-- > 0;) std::snprintf(text, sizeof text, "%02x", p[i]), s += text, s += i % 8 ? "" : " ";
    return s;
}

bool host_has(VecInfo const& info, Encoding encoding) {
    static Xbyak::util::Cpu const cpu;
    using C = Xbyak::util::Cpu;
    if (encoding != Encoding::legacy && !cpu.has(C::tAVX)) return false;
    if (encoding == Encoding::vex256 && !cpu.has(C::tAVX2)) return false;
    switch (info.feature) {
    case VecFeature::aes: return cpu.has(C::tAESNI) && (encoding != Encoding::vex256 || cpu.has(C::tVAES));
    case VecFeature::pclmul: return cpu.has(C::tPCLMULQDQ) && (encoding != Encoding::vex256 || cpu.has(C::tVPCLMULQDQ));
    case VecFeature::sha: return cpu.has(C::tSHA);
    case VecFeature::avx2: return cpu.has(C::tAVX2);
    case VecFeature::fma: return cpu.has(C::tFMA);
    case VecFeature::f16c: return cpu.has(C::tF16C);
    default: return cpu.has(C::tSSE42);
    }
}

// Whether the row has this encoding.
bool has_encoding(VecOp op, VecInfo const& info, Encoding encoding) {
    if (encoding == Encoding::legacy) return info.encodings != VecEncodings::vex;
    if (info.encodings == VecEncodings::sse) return false;
    if (info.wide_source) return encoding == Encoding::vex256;
    bool scalar = info.floating && (info.memory == 4 || info.memory == 8) && !info.crossing;
    switch (op) { // 128-bit only
    case VecOp::movss:
    case VecOp::movsd:
    case VecOp::movhlps:
    case VecOp::movq:
    case VecOp::rcpss:
    case VecOp::rsqrtss:
    case VecOp::insertps:
    case VecOp::phminposuw:
    case VecOp::aesimc:
    case VecOp::aeskeygenassist:
    case VecOp::dppd:
    case VecOp::ptest:
    case VecOp::vtestps:
    case VecOp::vtestpd:
    case VecOp::cvtpd2ps:
    case VecOp::cvtpd2dq:
    case VecOp::cvttpd2dq:
    case VecOp::cvtps2ph: return encoding == Encoding::vex128;
    case VecOp::vperm2f128:
    case VecOp::vpermd:
    case VecOp::vpermq:
    case VecOp::vbroadcastsd: return encoding == Encoding::vex256;
    default: break;
    }
    bool to_integer = info.form == VecForm::to_gpr || info.form == VecForm::to_gpr_rm ||
                      info.form == VecForm::from_gpr || info.form == VecForm::compare;
    return encoding == Encoding::vex128 || !(scalar || to_integer);
}

std::uint8_t pick_imm(std::mt19937_64& random, VecOp op, Encoding encoding) {
    auto imm = std::uint8_t(random());
    if (op >= VecOp::cmpps && op <= VecOp::cmpsd) imm &= encoding == Encoding::legacy ? 7 : 31;
    return imm;
}

// One operand set; returns false after reporting a difference.
bool check(VecOp op, Encoding encoding, std::mt19937_64& random, std::uint8_t imm, Native& native) {
    VecInfo const& info = vec_info(op);
    Operands o;
    fill(random, o.a);
    fill(random, o.b);
    fill(random, o.c);
    o.gpr = random() >> (random() % 60);
    o.mxcsr = 0x1f80 | unsigned(random() & 3) << 13 | (random() % 4 == 0 ? 0x8000 : 0) | (random() % 4 == 0 ? 0x40 : 0);
    if (random() % 3) o.mxcsr = 0x1f80;
    native.run(o);
    bool wide = encoding == Encoding::vex256;
    bool from_gpr = info.form == VecForm::from_gpr;
    alignas(32) std::uint8_t result[32] = {};
    VecEnv env{.mxcsr = o.mxcsr};
    void const* b = from_gpr ? static_cast<void const*>(&o.gpr) : o.b;
    run_vec(op, wide ? 32 : 16, result, o.a, b, o.c, imm, env);
    unsigned compared = wide && !info.wide_source ? 32 : 16;
    bool same = true;
    if (info.form == VecForm::compare)
        same = (o.flags & 0x8d5) == env.flags;
    else if (info.form == VecForm::to_gpr || info.form == VecForm::to_gpr_rm)
        same = std::memcmp(result, &o.gpr_result, 8) == 0;
    else
        same = std::memcmp(result, o.result, compared) == 0;
    same &= env.mxcsr == o.mxcsr_out;
    if (!same)
        ADD_FAILURE() << info.name << " encoding " << int(encoding) << " imm " << int(imm) << "\n a " << hex(o.a, 32)
                      << "\n b " << hex(o.b, 32) << "\n c " << hex(o.c, 32) << "\n gpr " << std::hex << o.gpr
                      << "\n host " << hex(o.result, compared) << " " << o.gpr_result << " mxcsr " << o.mxcsr_out
                      << " flags " << (o.flags & 0x8d5) << "\n ours " << hex(result, compared) << " mxcsr " << env.mxcsr
                      << " flags " << env.flags << " before " << o.mxcsr;
    return same;
}

TEST(VecOps, every_operation_matches_the_host_instruction_in_every_encoding) {
    char const* asked = std::getenv("VMM_VECTOR_ROUNDS");
    int const rounds = asked ? std::atoi(asked) : 400;
    unsigned covered = 0, absent = 0;
    for (unsigned i = 0; i < unsigned(VecOp::count); i++) {
        VecOp op = VecOp(i);
        VecInfo const& info = vec_info(op);
        for (Encoding encoding : {Encoding::legacy, Encoding::vex128, Encoding::vex256}) {
            if (!has_encoding(op, info, encoding)) continue;
            if (!host_has(info, encoding)) {
                absent++;
                continue;
            }
            auto random = make_random(i, unsigned(encoding));
            bool same = true;
            for (int k = 0; k < rounds && same; k += 10) {
                std::uint8_t imm = pick_imm(random, op, encoding);
                Native native(info, encoding, imm);
                for (int n = 0; n < 10 && same; n++) same = check(op, encoding, random, imm, native);
            }
            covered++;
        }
    }
    RecordProperty("encodings_covered", int(covered));
    RecordProperty("encodings_the_host_lacks", int(absent));
    if (!covered) GTEST_SKIP() << "the host CPU has none of the instructions";
}

} // namespace
