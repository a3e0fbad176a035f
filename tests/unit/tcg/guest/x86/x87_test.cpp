// Every x87 instruction on the arithmetic state against the host CPU: registers, tags, status word, stored operands;
// masked and unmasked exceptions, every rounding and precision. VMM_X87_ROUNDS: operand sets per instruction (default
// 300).
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/x87_unit.h"

#include <gtest/gtest.h>
#include <xbyak/xbyak.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

namespace {

using namespace vmm::tcg::x86;
namespace fsw = vmm::tcg::x86::fsw;

struct Image { // the FXSAVE area
    std::uint16_t fcw, fsw;
    std::uint8_t tags, reserved;
    std::uint16_t fop;
    std::uint64_t fip, fdp;
    std::uint32_t mxcsr, mxcsr_mask;
    struct {
        std::uint64_t mantissa;
        std::uint16_t sign_exponent, unused[3];
    } st[8];
    std::uint8_t rest[352];
};
static_assert(sizeof(Image) == 512);

struct Case {
    alignas(64) Image host_before, test, saved;
    alignas(16) std::uint8_t memory[16];
    std::uint64_t rflags = 0;
};

// Loads the test image, runs the two bytes (memory forms address Case::memory), saves it back.
class Native : public Xbyak::CodeGenerator {
public:
    Native(std::uint8_t first, std::uint8_t modrm) {
        push(rbx);
        mov(rbx, rdi);
        fxsave64(ptr[rbx + offsetof(Case, host_before)]);
        fxrstor64(ptr[rbx + offsetof(Case, test)]);
        mov(rax, ptr[rbx + offsetof(Case, rflags)]);
        push(rax);
        popfq();
        lea(rdi, ptr[rbx + offsetof(Case, memory)]);
        db(first);
        db(modrm < 0xc0 ? (modrm & 0x38) | 7 : modrm); // [rdi]
        pushfq();
        pop(rax);
        mov(ptr[rbx + offsetof(Case, rflags)], rax);
        fxsave64(ptr[rbx + offsetof(Case, test)]);
        db(0xdb);
        db(0xe2); // fnclex
        fxrstor64(ptr[rbx + offsetof(Case, host_before)]);
        pop(rbx);
        ret();
    }
    void fxsave64(Xbyak::Address const& a) { emit_fx(a, 0); }
    void fxrstor64(Xbyak::Address const& a) { emit_fx(a, 1); }
    void run(Case& c) { getCode<void (*)(Case*)>()(&c); }

private:
    void emit_fx(Xbyak::Address const& a, int digit) { // REX.W 0F AE /digit [rbx + disp32]
        db(0x48);
        db(0x0f);
        db(0xae);
        db(0x80 | digit << 3 | 3);
        dd(std::uint32_t(a.getRegExp().getDisp()));
    }
};

bool is_defined(unsigned group, unsigned modrm) {
    unsigned reg = modrm >> 3 & 7;
    if (modrm < 0xc0) {
        bool control = (group == 1 && (reg >= 4 || reg == 1)) ||
                       (group == 5 && (reg == 4 || reg == 6 || reg == 7 || reg == 5)) ||
                       (group == 3 && (reg == 4 || reg == 6));
        return !control;
    }
    switch (group) {
    case 1:
        return modrm < 0xd0 || modrm == 0xe0 || modrm == 0xe1 || modrm == 0xe4 || modrm == 0xe5 ||
               (modrm >= 0xe8 && modrm <= 0xee) || modrm >= 0xf0;
    case 2: return reg < 4 || modrm == 0xe9;
    case 3: return reg < 4 || reg == 5 || reg == 6;
    case 4: return reg != 2 && reg != 3;
    case 5: return reg == 0 || (reg >= 2 && reg <= 5);
    case 6: return reg != 2 && (reg != 3 || modrm == 0xd9);
    case 7: return reg == 5 || reg == 6;
    default: return true;
    }
}

X87::Register random_register(std::mt19937_64& random) {
    static constexpr std::uint16_t exponents[] = {0,      1,      0x3fff, 0x3ffe, 0x4000, 0x403e, 0x403d, 0x7ffe,
                                                  0x7fff, 0x3c01, 0x3f81, 0x43fe, 0x407e, 0x400e, 0x401e, 0x3f6a};
    static constexpr std::uint64_t mantissas[] = {0,
                                                  1,
                                                  0x8000000000000000,
                                                  0xc000000000000000,
                                                  0xffffffffffffffff,
                                                  0x8000000000000001,
                                                  0xa000000000000000,
                                                  0x4000000000000000,
                                                  0x8000000000000400,
                                                  0xfffffffffffff800,
                                                  0x80000000000000ff,
                                                  0xc000000000000001};
    std::uint16_t sign = random() & 1 ? 0x8000 : 0;
    switch (random() % 4) {
    case 0:
        return {.mantissa = mantissas[random() % std::size(mantissas)],
                .sign_exponent = std::uint16_t(sign | exponents[random() % std::size(exponents)])};
    case 1:
        return {.mantissa = random() | std::uint64_t(1) << 63,
                .sign_exponent = std::uint16_t(sign | (0x3ff0 + random() % 0x60))};
    case 2:
        return {.mantissa = (random() % 64 | std::uint64_t(1) << 6) << 57,
                .sign_exponent = std::uint16_t(sign | (0x3ff8 + random() % 16))};
    default: return {.mantissa = random(), .sign_exponent = std::uint16_t(random())};
    }
}

void fill(std::mt19937_64& random, Case& k) {
    std::memset(&k.test, 0, sizeof k.test);
    k.test.mxcsr = 0x1f80;
    k.test.fcw = std::uint16_t(0x40 | (random() & 0xf00) | (random() % 2 ? 0x3f : random() & 0x3f));
    unsigned top = unsigned(random() & 7);
    k.test.fsw =
        std::uint16_t(top << 11 | (random() & fsw::conditions) | (random() & k.test.fcw & 0x3f) | (random() & 0x40));
    k.test.tags = std::uint8_t(random() % 3 ? 0x3f << (random() % 3) : random());
    k.test.tags = std::uint8_t(k.test.tags << top | k.test.tags >> ((8 - top) & 7));
    if (top == 0) k.test.tags = std::uint8_t(k.test.tags | 1);
    for (auto& r : k.test.st) {
        auto v = random_register(random);
        r = {v.mantissa, v.sign_exponent, {}};
    }
    auto v = random_register(random);
    float f = float(std::int32_t(random())) / 16;
    double d = double(std::int64_t(random())) / 4096;
    std::uint64_t words[2] = {random(), random()};
    std::memcpy(k.memory, words, 16);
    switch (random() % 5) {
    case 0: std::memcpy(k.memory, &f, 4); break;
    case 1: std::memcpy(k.memory, &d, 8); break;
    case 2:
        std::memcpy(k.memory, &v.mantissa, 8);
        std::memcpy(k.memory + 8, &v.sign_exponent, 2);
        break;
    case 3:
        for (auto& b : k.memory) b = std::uint8_t((random() % 10) << 4 | random() % 10);
        break;
    default: break;
    }
    k.rflags = 0x202 | (random() & 0x8d5);
}

void copy_in(X86Context& c, Case const& k) {
    X87& x = c.state.x87;
    x.fcw = k.test.fcw;
    x.fsw = k.test.fsw;
    x.tags = k.test.tags;
    for (unsigned i = 0; i < 8; i++)
        st(x, i) = {.mantissa = k.test.st[i].mantissa, .sign_exponent = k.test.st[i].sign_exponent};
    c.set_rflags(k.rflags);
}

unsigned source_bytes(unsigned group, unsigned reg) {
    switch (group) {
    case 0:
    case 2: return 4;
    case 4: return 8;
    case 6: return 2;
    case 1:
    case 3: return reg == 0 ? 4 : 0;
    case 5: return reg == 0 ? 8 : 0;
    default: return reg == 0 ? 2 : reg == 5 ? 8 : 0;
    }
}

void run_ours(X86Context& c, unsigned group, unsigned modrm, std::uint8_t* memory) {
    auto a = std::uint64_t(x87_arg::make(group << 8 | modrm, vmm::x86::ds, false, 0));
    unsigned reg = modrm >> 3 & 7;
    if (modrm >= 0xc0) {
        helper::x87_register(c, a, 0, 0);
    } else if (unsigned bytes = source_bytes(group, reg)) {
        std::uint64_t value = 0;
        std::memcpy(&value, memory, bytes);
        helper::x87_source(c, a, value, 0);
    } else {
        helper::x87_memory(c, a, std::uint64_t(memory), 0);
    }
}

std::string describe(Case const& k) {
    char text[64];
    std::snprintf(text, sizeof text, "fcw %04x fsw %04x tags %02x rflags %03lx", k.test.fcw, k.test.fsw, k.test.tags,
                  k.rflags & 0x8d5);
    std::string s = text;
    for (unsigned i : {0, 1, 7}) {
        std::snprintf(text, sizeof text, " st%u %04x:%016lx", i, k.test.st[i].sign_exponent, k.test.st[i].mantissa);
        s += text;
    }
    s += " mem";
    for (unsigned i = 10; i-- > 0;) std::snprintf(text, sizeof text, "%02x", k.memory[i]), s += text;
    return s;
}
Case as_case(X86Context const& c, std::uint8_t const* memory) {
    Case k{};
    X87 const& x = c.state.x87;
    k.test.fcw = x.fcw;
    k.test.fsw = x.fsw;
    k.test.tags = x.tags;
    for (unsigned i = 0; i < 8; i++) {
        k.test.st[i].mantissa = st(x, i).mantissa;
        k.test.st[i].sign_exponent = st(x, i).sign_exponent;
    }
    std::memcpy(k.memory, memory, 16);
    k.rflags = c.rflags();
    return k;
}

bool load_flat(vmm::tcg::EngineContext&, std::uint64_t va, unsigned size, void* to) {
    std::memcpy(to, reinterpret_cast<void const*>(va), size);
    return true;
}
bool store_flat(vmm::tcg::EngineContext&, std::uint64_t va, unsigned size, void const* from) {
    std::memcpy(reinterpret_cast<void*>(va), from, size);
    return true;
}

TEST(X87, every_instruction_matches_the_host) {
    char const* asked = std::getenv("VMM_X87_ROUNDS");
    int const rounds = asked ? std::atoi(asked) : 300;
    auto bank = std::make_unique<vmm::tcg::TlbBank>();
    vmm::tcg::MemoryOps ops{};
    ops.load = load_flat;
    ops.store = store_flat;
    auto context = std::make_unique<X86Context>();
    std::vector<std::string> warnings;
    vmm::x86::CpuModel const model = vmm::x86::make_cpu_model("max", vmm::x86::tcg_features(), warnings).value();
    context->model = &model;
    context->engine.bank = bank.get();
    context->engine.memory = &ops;
    context->engine.mode = Mode::code64 | Mode::protected_mode | Mode::long_mode;
    context->state.cr0 |= vmm::x86::cr0::ne;
    for (unsigned group = 0; group < 8; group++) {
        for (unsigned modrm = 0; modrm < 256; modrm += modrm < 0xc0 ? 8 : 1) {
            if (modrm >= 0x40 && modrm < 0xc0) continue;
            if (!is_defined(group, modrm)) continue;
            std::mt19937_64 random(group * 256 + modrm);
            Native native(std::uint8_t(0xd8 + group), std::uint8_t(modrm));
            for (int n = 0; n < rounds; n++) {
                auto k = std::make_unique<Case>();
                fill(random, *k);
                Case before = *k;
                alignas(16) std::uint8_t memory[16];
                std::memcpy(memory, k->memory, 16);
                copy_in(*context, *k);
                native.run(*k);
                run_ours(*context, group, modrm, memory);
                Case ours = as_case(*context, memory);
                std::string expected = describe(*k), got = describe(ours);
                if (expected == got) continue;
                ADD_FAILURE() << std::hex << (0xd8 + group) << " " << modrm << " set " << std::dec << n << "\n before "
                              << describe(before) << "\n host   " << expected << "\n ours   " << got;
                break;
            }
        }
    }
}

} // namespace
