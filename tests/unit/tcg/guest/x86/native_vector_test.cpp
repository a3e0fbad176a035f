// The host CPU is the oracle: random MMX, SSE and AVX instructions, natively and through lifter and interpreter, from
// the same registers, MXCSR, flags and memory. VMM_NATIVE_VECTOR_RUNS sets how many (default 20,000).
#include "tests/support/identity_guest.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/decode.h"
#include "vmm/tcg/guest/x86/fpu_image.h"
#include "vmm/tcg/guest/x86/ir_names.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/ir/passes.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <xbyak/xbyak.h>
#include <xbyak/xbyak_util.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>

namespace {

using namespace vmm;
using namespace vmm::tcg::x86;

constexpr std::size_t data_bytes = 256, data_middle = 128;

struct Machine {
    alignas(64) std::uint8_t fx[512] = {};
    std::uint8_t high[16][16] = {};
    std::uint64_t gpr[16] = {};
    std::uint64_t flags = 0, host_stack = 0;
    alignas(64) std::uint8_t host[512] = {};
};

// Everything by offsets from the machine, whose address is an immediate: no register is lost but RSP.
class Native : public Xbyak::CodeGenerator {
public:
    Native(std::span<std::uint8_t const> insn, Machine* m) {
        for (auto r : {rbx, rbp, r12, r13, r14, r15}) push(r);
        mov(r15, std::uint64_t(m));
        mov(ptr[r15 + offsetof(Machine, host_stack)], rsp);
        state(r15, offsetof(Machine, host), 0);
        state(r15, offsetof(Machine, fx), 1);
        for (int i = 0; i < 16; i++)
            vinsertf128(Xbyak::Ymm(i), Xbyak::Ymm(i), ptr[r15 + offsetof(Machine, high) + 16 * i], 1);
        push(qword[r15 + offsetof(Machine, flags)]);
        popfq();
        for (int r : {0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13})
            mov(Xbyak::Reg64(r), ptr[r15 + offsetof(Machine, gpr) + 8 * r]);
        for (auto b : insn) db(b);
        for (int r : {0, 1, 2, 3, 6, 7, 8, 9, 10, 11, 12, 13})
            mov(ptr[r15 + offsetof(Machine, gpr) + 8 * r], Xbyak::Reg64(r));
        pushfq();
        pop(qword[r15 + offsetof(Machine, flags)]);
        for (int i = 0; i < 16; i++) vextractf128(ptr[r15 + offsetof(Machine, high) + 16 * i], Xbyak::Ymm(i), 1);
        state(r15, offsetof(Machine, fx), 0);
        vzeroupper();
        state(r15, offsetof(Machine, host), 1);
        for (auto r : {r15, r14, r13, r12, rbp, rbx}) pop(r);
        ret();
    }
    void run() { getCode<void (*)()>()(); }

private:
    void state(Xbyak::Reg64 const&, std::size_t offset, int digit) { // FXSAVE64 / FXRSTOR64 [r15 + disp32]
        for (int b : {0x49, 0x0f, 0xae, 0x87 | digit << 3}) db(b);
        dd(std::uint32_t(offset));
    }
};

class Interpreted {
public:
    bool run(tcg::ir::Block const& block, Machine& m) {
        X86Context& context = guest_.context();
        State& s = context.state;
        std::memcpy(s.gpr.data(), m.gpr, sizeof m.gpr);
        context.set_rflags(m.flags);
        for (unsigned i = 0; i < 16; i++) {
            std::memcpy(s.ymm[i].data(), m.fx + 160 + 16 * i, 16);
            std::memcpy(&s.ymm[i][2], m.high[i], 16);
        }
        std::memcpy(&s.mxcsr, m.fx + 24, 4);
        std::memcpy(&s.x87.fsw, m.fx + 2, 2);
        s.x87.tags = m.fx[4];
        for (unsigned i = 0; i < 8; i++) {
            std::memcpy(&st(s.x87, i).mantissa, m.fx + 32 + 16 * i, 8);
            std::memcpy(&st(s.x87, i).sign_exponent, m.fx + 40 + 16 * i, 2);
        }
        bool const done = guest_.run(block);
        std::memcpy(m.gpr, s.gpr.data(), sizeof m.gpr);
        m.flags = context.rflags();
        for (unsigned i = 0; i < 16; i++) {
            std::memcpy(m.fx + 160 + 16 * i, s.ymm[i].data(), 16);
            std::memcpy(m.high[i], &s.ymm[i][2], 16);
        }
        std::memcpy(m.fx + 24, &s.mxcsr, 4);
        std::memcpy(m.fx + 2, &s.x87.fsw, 2);
        m.fx[4] = s.x87.tags;
        for (unsigned i = 0; i < 8; i++) std::memcpy(m.fx + 32 + 16 * i, &st(s.x87, i), 10);
        return done;
    }
    static constexpr Mode mode{Mode::code64 | Mode::protected_mode | Mode::long_mode | Mode::cpl_mask | Mode::osfxsr |
                               Mode::osxmmexcpt | Mode::avx};

private:
    test::IdentityGuest<HelperId::pcmpstr, HelperId::x87_wait> guest_{mode};
};

bool acceptable(Decoded const& d) {
    bool vector = false;
    for (unsigned i = 0; i < d.insn.operand_count_visible; i++) {
        auto const& o = d.operands[i];
        if (o.type == ZYDIS_OPERAND_TYPE_MEMORY) {
            if (o.mem.base != ZYDIS_REGISTER_RBX || o.mem.index != ZYDIS_REGISTER_NONE ||
                std::abs(o.mem.disp.value) > 64)
                return false;
            if (o.mem.segment == ZYDIS_REGISTER_FS || o.mem.segment == ZYDIS_REGISTER_GS) return false;
        }
        if (o.type != ZYDIS_OPERAND_TYPE_REGISTER) continue;
        switch (ZydisRegisterGetClass(o.reg.value)) {
        case ZYDIS_REGCLASS_XMM:
        case ZYDIS_REGCLASS_YMM:
        case ZYDIS_REGCLASS_MMX: vector = true; break;
        case ZYDIS_REGCLASS_GPR32:
        case ZYDIS_REGCLASS_GPR64: {
            int id = ZydisRegisterGetId(o.reg.value);
            if (id == rbx || id == rsp || id == rbp || id >= r14) return false;
            break;
        }
        default: return false;
        }
    }
    switch (d.insn.mnemonic) {
    case ZYDIS_MNEMONIC_MASKMOVDQU:
    case ZYDIS_MNEMONIC_MASKMOVQ:
    case ZYDIS_MNEMONIC_VMASKMOVDQU:
    case ZYDIS_MNEMONIC_VMASKMOVPS:
    case ZYDIS_MNEMONIC_VMASKMOVPD:
    case ZYDIS_MNEMONIC_VPMASKMOVD:
    case ZYDIS_MNEMONIC_VPMASKMOVQ: return false;
    default: return vector;
    }
}

std::vector<std::uint8_t> random_instruction(std::mt19937_64& random) {
    std::vector<std::uint8_t> b;
    static constexpr std::uint8_t prefixes[] = {0x66, 0xf3, 0xf2};
    unsigned map = unsigned(random() % 3);
    if (random() % 2) {
        if (random() % 4) b.push_back(prefixes[map ? 0 : random() % 3]);
        if (random() % 2) b.push_back(std::uint8_t(0x40 | (random() % 16)));
        b.push_back(0x0f);
        if (map) b.push_back(map == 1 ? 0x38 : 0x3a);
    } else {
        b = {0xc4, std::uint8_t((random() & 0xe0) | (map + 1)), std::uint8_t(random())};
        b[1] |= 0x60;
    }
    b.push_back(std::uint8_t(random()));
    auto modrm = std::uint8_t(random());
    if (modrm < 0xc0) modrm = std::uint8_t((modrm & 0x38) | 0x43);
    b.push_back(modrm);
    while (b.size() < 15) b.push_back(std::uint8_t(random() % 4 ? random() & 0xb0 : random()));
    return b;
}

std::uint64_t lane(std::mt19937_64& random) {
    static constexpr std::uint64_t values[] = {0,
                                               ~0ull,
                                               0x7f8000007f800001,
                                               0xffc00001ff800000,
                                               0x7ff0000000000001,
                                               0x7ff8000000000000,
                                               0x8000000080000000,
                                               0x3ff0000000000000,
                                               0x3f80000040000000,
                                               0x41dfffffffc00000,
                                               0x0000000100000001,
                                               5};
    if (random() % 3 == 0) return values[random() % std::size(values)];
    if (random() % 3 == 0) {
        double v = double(std::int64_t(random())) / double(1ull << (random() % 63));
        std::uint64_t bits;
        std::memcpy(&bits, &v, 8);
        return bits;
    }
    return random();
}
void fill(std::mt19937_64& random, void* p, std::size_t n) {
    for (std::size_t i = 0; i < n; i += 8) {
        std::uint64_t v = lane(random);
        std::memcpy(static_cast<char*>(p) + i, &v, 8);
    }
}

std::string differences(Machine const& ours, Machine const& theirs, std::uint64_t mask) {
    std::string s;
    auto bytes = [](std::uint8_t const* p, unsigned n) {
        std::string t;
        for (unsigned i = n; i-- > 0;) t += fmt::format("{:02x}", p[i]);
        return t;
    };
    for (unsigned i = 0; i < 16; i++) {
        if (ours.gpr[i] != theirs.gpr[i]) s += fmt::format("\nr{} {:x} host {:x}", i, ours.gpr[i], theirs.gpr[i]);
        if (std::memcmp(ours.fx + 160 + 16 * i, theirs.fx + 160 + 16 * i, 16) ||
            std::memcmp(ours.high[i], theirs.high[i], 16))
            s += fmt::format("\nxmm{} {}:{} host {}:{}", i, bytes(ours.high[i], 16), bytes(ours.fx + 160 + 16 * i, 16),
                             bytes(theirs.high[i], 16), bytes(theirs.fx + 160 + 16 * i, 16));
        if (i < 8 && std::memcmp(ours.fx + 32 + 16 * i, theirs.fx + 32 + 16 * i, 10))
            s += fmt::format("\nst{} {} host {}", i, bytes(ours.fx + 32 + 16 * i, 10),
                             bytes(theirs.fx + 32 + 16 * i, 10));
    }
    if (std::memcmp(ours.fx + 24, theirs.fx + 24, 4))
        s += "\nmxcsr " + bytes(ours.fx + 24, 4) + " host " + bytes(theirs.fx + 24, 4);
    if (std::memcmp(ours.fx + 2, theirs.fx + 2, 3))
        s += "\nfsw, tags " + bytes(ours.fx + 2, 3) + " host " + bytes(theirs.fx + 2, 3);
    if ((ours.flags ^ theirs.flags) & mask) s += fmt::format("\nflags {:x} host {:x}", ours.flags, theirs.flags);
    return s;
}

TEST(NativeDifferential, vector_instructions_do_what_the_host_does) {
    using HostCpu = Xbyak::util::Cpu;
    if (!HostCpu().has(HostCpu::tAVX)) GTEST_SKIP() << "the host has no AVX";
    char const* const asked = std::getenv("VMM_NATIVE_VECTOR_RUNS");
    long const wanted = asked ? std::atol(asked) : 20000;
    std::vector<std::string> warnings;
    auto supported = x86::host_features();
    auto engine = x86::tcg_features();
    for (std::size_t i = 0; i < supported.size(); i++) supported[i] &= engine[i];
    auto max = x86::make_cpu_model("max", supported, warnings);
    ASSERT_TRUE(max.ok());
    auto interpreted = std::make_unique<Interpreted>();
    std::mt19937_64 random(11);
    alignas(64) std::uint8_t memory[data_bytes];
    std::vector<std::uint8_t> page(4096), start_data(data_bytes), our_data(data_bytes);
    std::vector<bool> seen(ZYDIS_MNEMONIC_MAX_VALUE + 1);
    long done = 0;
    for (unsigned failures = 0; done < wanted && failures < 12;) {
        auto const bytes = random_instruction(random);
        Decoded d;
        if (Decoder(Interpreted::mode, *max).decode(bytes, d) != DecodeStatus::ok || !acceptable(d)) continue;
        auto start = std::make_unique<Machine>();
        fill(random, start->fx + 160, 256);
        fill(random, start->high, sizeof start->high);
        for (unsigned i = 0; i < 8; i++)
            fill(random, start->fx + 32 + 16 * i, 8), start->fx[40 + 16 * i] = 0xff, start->fx[41 + 16 * i] = 0xff;
        for (auto& r : start->gpr) r = lane(random);
        start->gpr[rbx] = std::uint64_t(memory) + data_middle;
        start->fx[0] = 0x7f;
        start->fx[1] = 3;
        start->fx[4] = 0xff;
        std::uint32_t mxcsr = 0x1f80 | unsigned(random() % 4) << 13;
        std::memcpy(start->fx + 24, &mxcsr, 4);
        start->flags = 0x202 | (random() & flag::arithmetic);
        fill(random, start_data.data(), data_bytes);
        std::copy(bytes.begin(), bytes.end(), page.begin());
        tcg::ir::Block block;
        lift_block(Interpreted::mode, *max, {page.data(), nullptr, 0}, {.max_insns = 1}, block);
        if (random() % 2) tcg::ir::optimize(block);
        auto ours = std::make_unique<Machine>(*start), theirs = std::make_unique<Machine>(*start);
        std::memcpy(memory, start_data.data(), data_bytes);
        if (!interpreted->run(block, *ours)) continue; // misaligned, or done by a helper that is not here
        std::memcpy(our_data.data(), memory, data_bytes);
        std::memcpy(memory, start_data.data(), data_bytes);
        Native({bytes.data(), d.insn.length}, theirs.get()).run();
        ++done;
        seen[d.insn.mnemonic] = true;
        std::string text = differences(*ours, *theirs, flag::arithmetic);
        if (std::memcmp(our_data.data(), memory, data_bytes)) text += "\nmemory";
        if (text.empty()) continue;
        ++failures;
        std::string hex;
        for (unsigned i = 0; i < d.insn.length; ++i) hex += fmt::format("{:02x} ", bytes[i]);
        X86Names const names;
        ADD_FAILURE() << ZydisMnemonicGetString(d.insn.mnemonic) << " " << hex << text << "\n"
                      << tcg::ir::to_text(block, &names);
    }
    EXPECT_GE(std::count(seen.begin(), seen.end(), true), 400) << "too few mnemonics came up";
}

} // namespace
