// The host CPU is the oracle: single random integer instructions run natively and through lifter and interpreter, from
// the same registers, flags and memory; everything defined must agree. VMM_NATIVE_RUNS sets how many (default 20,000).
#include "tests/support/identity_guest.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/decode.h"
#include "vmm/tcg/guest/x86/ir_names.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/ir/passes.h"

#include <fmt/core.h>
#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string_view>
#include <vector>

#ifdef __x86_64__
namespace {

using namespace vmm;
using namespace vmm::tcg::x86;
using Registers = std::array<std::uint64_t, 16>;

constexpr std::size_t data_bytes = 8192;
constexpr std::uint64_t compared_flags = flag::arithmetic | flag::df;

struct Machine {
    Registers gpr{};
    std::uint64_t flags = 0;
    std::vector<std::uint8_t> data = std::vector<std::uint8_t>(data_bytes);
};

// Executes one instruction on the host, everything loaded and stored RIP-relative so that no register is lost.
class Native {
public:
    Native() {
        page_ = static_cast<std::uint8_t*>(
            mmap(nullptr, 8192, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
        slots_ = reinterpret_cast<std::uint64_t*>(page_ + 4096);
    }
    ~Native() { munmap(page_, 8192); }
    bool usable() const { return page_ != MAP_FAILED; }

    void run(std::span<std::uint8_t const> insn, Machine& m) {
        std::copy(m.gpr.begin(), m.gpr.end(), slots_);
        slots_[16] = m.flags | flag::one | flag::if_;
        at_ = page_;
        for (std::uint8_t r : {0x53, 0x55}) emit({r}); // push rbx, rbp
        for (std::uint8_t r = 0x54; r < 0x58; ++r) emit({0x41, r});
        move(0x89, rsp, 17);
        stack_at(16);
        emit({0x9d}); // popfq
        for (unsigned r = 0; r < 16; ++r) move(0x8b, r, r);
        at_ = std::copy(insn.begin(), insn.end(), at_);
        for (unsigned r = 0; r < 16; ++r) move(0x89, r, r);
        stack_at(19);
        emit({0x9c}); // pushfq, into slot 18
        move(0x8b, rsp, 17);
        emit({0xfc}); // cld
        for (std::uint8_t r = 0x5f; r >= 0x5c; --r) emit({0x41, r});
        emit({0x5d, 0x5b, 0xc3});
        reinterpret_cast<void (*)()>(page_)();
        std::copy(slots_, slots_ + 16, m.gpr.begin());
        m.flags = slots_[18];
    }

private:
    void emit(std::initializer_list<std::uint8_t> bytes) { at_ = std::copy(bytes.begin(), bytes.end(), at_); }
    void displacement(unsigned slot) {
        auto const d = std::int32_t(reinterpret_cast<std::uint8_t*>(slots_ + slot) - (at_ + 4));
        std::memcpy(at_, &d, 4);
        at_ += 4;
    }
    void move(std::uint8_t opcode, unsigned r, unsigned slot) {
        emit({std::uint8_t(0x48 | (r >> 3) << 2), opcode, std::uint8_t(5 | (r & 7) << 3)});
        displacement(slot);
    }
    void stack_at(unsigned slot) { // lea rsp, [slot]
        emit({0x48, 0x8d, 0x25});
        displacement(slot);
    }

    std::uint8_t *page_, *at_ = nullptr;
    std::uint64_t* slots_; // 0-15 registers, 16 flags in, 17 host stack, 18 flags out
};

class Interpreted {
public:
    // False: the instruction faulted.
    bool run(tcg::ir::Block const& block, Machine& m) {
        X86Context& context = guest_.context();
        context.state.gpr = m.gpr;
        context.set_rflags(m.flags);
        bool const done = guest_.run(block);
        m.gpr = context.state.gpr;
        m.flags = context.rflags();
        return done;
    }
    void use_tlb(std::uint64_t address, bool on) {
        for (std::uint64_t va = address; va < address + data_bytes; va += 4096)
            for (auto* table : {&guest_.bank().read, &guest_.bank().write})
                (*table)[tcg::TlbBank::slot(va)] = {.tag = on ? va : tcg::invalid_tag, .addend = 0};
    }
    static constexpr Mode mode{Mode::code64 | Mode::protected_mode | Mode::long_mode | Mode::cpl_mask};

private:
    test::IdentityGuest<HelperId::cmpxchg_wide, HelperId::crc32c, HelperId::rep_movs, HelperId::rep_stos,
                        HelperId::rep_movs64, HelperId::rep_stos64, HelperId::rep_lods, HelperId::rep_cmps,
                        HelperId::rep_scas>
        guest_{mode};
};

// What may run here: the general-purpose instructions, touching memory only through RBX, RSP, RSI, RDI.
class Chooser {
public:
    explicit Chooser(x86::CpuModel const& cpu) : model_(cpu) {}

    bool acceptable(std::span<std::uint8_t const> bytes, Decoded& d) const {
        if (Decoder(Interpreted::mode, model_).decode(bytes, d) != DecodeStatus::ok) return false;
        static constexpr ZydisInstructionCategory categories[] = {
            ZYDIS_CATEGORY_BINARY,    ZYDIS_CATEGORY_LOGICAL,   ZYDIS_CATEGORY_SHIFT,    ZYDIS_CATEGORY_ROTATE,
            ZYDIS_CATEGORY_BITBYTE,   ZYDIS_CATEGORY_DATAXFER,  ZYDIS_CATEGORY_CMOV,     ZYDIS_CATEGORY_SETCC,
            ZYDIS_CATEGORY_CONVERT,   ZYDIS_CATEGORY_SEMAPHORE, ZYDIS_CATEGORY_STRINGOP, ZYDIS_CATEGORY_PUSH,
            ZYDIS_CATEGORY_POP,       ZYDIS_CATEGORY_BMI1,      ZYDIS_CATEGORY_BMI2,     ZYDIS_CATEGORY_LZCNT,
            ZYDIS_CATEGORY_ADOX_ADCX, ZYDIS_CATEGORY_FLAGOP,    ZYDIS_CATEGORY_MISC,     ZYDIS_CATEGORY_SSE};
        if (std::find(std::begin(categories), std::end(categories), d.insn.meta.category) == std::end(categories))
            return false;
        return allowed(d.insn) && operands_allowed(d);
    }

private:
    static bool allowed(ZydisDecodedInstruction const& insn) {
        switch (insn.mnemonic) {
        case ZYDIS_MNEMONIC_POPF:
        case ZYDIS_MNEMONIC_POPFQ:
        case ZYDIS_MNEMONIC_PUSHF:
        case ZYDIS_MNEMONIC_PUSHFQ:
        case ZYDIS_MNEMONIC_CLI:
        case ZYDIS_MNEMONIC_STI:
        case ZYDIS_MNEMONIC_CLAC:
        case ZYDIS_MNEMONIC_STAC:
        case ZYDIS_MNEMONIC_CPUID:
        case ZYDIS_MNEMONIC_XLAT:
        case ZYDIS_MNEMONIC_ENTER:
        case ZYDIS_MNEMONIC_LEAVE:
        case ZYDIS_MNEMONIC_PAUSE: return false;
        default: break;
        }
        switch (insn.meta.isa_ext) {
        case ZYDIS_ISA_EXT_BASE:
        case ZYDIS_ISA_EXT_LONGMODE:
        case ZYDIS_ISA_EXT_BMI1:
        case ZYDIS_ISA_EXT_BMI2:
        case ZYDIS_ISA_EXT_LZCNT:
        case ZYDIS_ISA_EXT_ADOX_ADCX:
        case ZYDIS_ISA_EXT_MOVBE: return true;
        default: return insn.mnemonic == ZYDIS_MNEMONIC_CRC32 || insn.mnemonic == ZYDIS_MNEMONIC_POPCNT;
        }
    }

    static bool operands_allowed(Decoded const& d) {
        bool const moves_stack =
            d.insn.meta.category == ZYDIS_CATEGORY_PUSH || d.insn.meta.category == ZYDIS_CATEGORY_POP;
        for (unsigned i = 0; i < d.insn.operand_count_visible; ++i) {
            ZydisDecodedOperand const& o = d.operands[i];
            if (o.type == ZYDIS_OPERAND_TYPE_REGISTER && !register_allowed(o)) return false;
            if (o.type != ZYDIS_OPERAND_TYPE_MEMORY) continue;
            bool const string = o.mem.base == ZYDIS_REGISTER_RSI || o.mem.base == ZYDIS_REGISTER_RDI;
            bool const plain = o.mem.base == ZYDIS_REGISTER_RBX || string;
            if (!plain || o.mem.index != ZYDIS_REGISTER_NONE || std::abs(o.mem.disp.value) > 1000) return false;
            if (o.mem.segment == ZYDIS_REGISTER_FS || o.mem.segment == ZYDIS_REGISTER_GS) return false;
        }
        bool const bit_string = d.insn.meta.category == ZYDIS_CATEGORY_BITBYTE &&
                                d.operands[0].type == ZYDIS_OPERAND_TYPE_MEMORY &&
                                d.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER;
        if (d.insn.meta.category == ZYDIS_CATEGORY_STRINGOP && d.insn.address_width != 64) return false;
        if (moves_stack && d.insn.operand_width == 0) return false;
        return !(d.has(ZYDIS_ATTRIB_HAS_SEGMENT_FS) || d.has(ZYDIS_ATTRIB_HAS_SEGMENT_GS)) && !bit_string;
    }

    static bool register_allowed(ZydisDecodedOperand const& o) {
        ZydisRegisterClass const c = ZydisRegisterGetClass(o.reg.value);
        if (c != ZYDIS_REGCLASS_GPR8 && c != ZYDIS_REGCLASS_GPR16 && c != ZYDIS_REGCLASS_GPR32 &&
            c != ZYDIS_REGCLASS_GPR64)
            return false;
        ZydisRegister const whole = ZydisRegisterGetLargestEnclosing(ZYDIS_MACHINE_MODE_LONG_64, o.reg.value);
        return whole != ZYDIS_REGISTER_RSP;
    }

    x86::CpuModel const& model_;
};

std::uint64_t interesting(std::mt19937_64& random) {
    static constexpr std::uint64_t values[] = {0,
                                               1,
                                               2,
                                               0x7f,
                                               0x80,
                                               0xff,
                                               0x7fff,
                                               0x8000,
                                               0xffff,
                                               0x7fffffff,
                                               0x80000000,
                                               0xffffffff,
                                               0x7fffffffffffffff,
                                               0x8000000000000000,
                                               ~0ull};
    return random() % 2 ? random() : values[random() % std::size(values)];
}

void fill(std::mt19937_64& random, std::vector<std::uint8_t>& data) {
    for (std::size_t at = 0; at < data.size(); at += 8) {
        std::uint64_t const v = random() % 4 ? random() : 0;
        std::memcpy(&data[at], &v, 8);
    }
}

// Random bytes shaped like "[prefix] [REX] opcode modrm(RBX) ...".
std::vector<std::uint8_t> random_instruction(std::mt19937_64& random) {
    std::vector<std::uint8_t> b;
    b.reserve(16);
    static constexpr std::uint8_t prefixes[] = {0x66, 0xf3, 0xf2, 0xf0};
    if (random() % 3 == 0) b.push_back(prefixes[random() % 4]);
    unsigned const map = random() % 6;
    if (map == 5) {
        b = {0xc4, std::uint8_t(0xe0 | (2 + random() % 2)), std::uint8_t(random() & 0xfb)};
        b[1] = std::uint8_t(b[1] & (random() % 2 ? 0x7f : 0xff));
    } else {
        if (random() % 2) b.push_back(std::uint8_t(0x48 | (random() % 8 & 0xe)));
        if (map >= 2) b.push_back(0x0f);
        if (map == 4) b.push_back(0x38);
    }
    b.push_back(std::uint8_t(random()));
    std::uint8_t modrm = std::uint8_t(random());
    if (modrm < 0xc0) modrm = std::uint8_t((modrm & 0x38) | 0x43);
    b.push_back(modrm);
    while (b.size() < 15) b.push_back(std::uint8_t(random()));
    return b;
}

std::string describe(Machine const& m) {
    std::string text;
    for (unsigned r = 0; r < 16; ++r) text += fmt::format("{}={:x} ", r, m.gpr[r]);
    return text + fmt::format("flags={:x}", m.flags);
}

TEST(NativeDifferential, integer_instructions_do_what_the_host_does) {
    char const* const asked = std::getenv("VMM_NATIVE_RUNS");
    long const wanted = asked ? std::atol(asked) : 20000;
    std::vector<std::string> warnings;
    auto max = x86::make_cpu_model("max", x86::host_features(), warnings);
    ASSERT_TRUE(max.ok());
    Native native;
    if (!native.usable()) GTEST_SKIP() << "no executable memory";
    auto interpreted = std::make_unique<Interpreted>();
    Chooser const chooser(*max);
    std::mt19937_64 random(7);
    alignas(4096) static std::uint8_t buffer[data_bytes];
    std::uint64_t const base = reinterpret_cast<std::uint64_t>(buffer);
    std::vector<std::uint8_t> page(4096);
    long done = 0;
    std::vector<bool> seen(ZYDIS_MNEMONIC_MAX_VALUE + 1);
    for (unsigned failures = 0; done < wanted && failures < 10;) {
        auto const bytes = random_instruction(random);
        Decoded d;
        if (!chooser.acceptable(bytes, d)) continue;
        Machine start;
        for (auto& r : start.gpr) r = interesting(random);
        fill(random, start.data);
        start.gpr[rbx] = base + 4096 - 8 + random() % 16;
        start.gpr[rsp] = base + 4096 + 8 * (random() % 4);
        start.gpr[rsi] = base + 4096 + random() % 2000 - 1000;
        start.gpr[rdi] = base + 4096 + random() % 2000 - 1000;
        if (d.insn.meta.category == ZYDIS_CATEGORY_STRINGOP) start.gpr[rcx] = random() % 100;
        if (d.insn.mnemonic == ZYDIS_MNEMONIC_CMPXCHG16B) start.gpr[rbx] = base + 4096 - 128;
        start.flags = random() & (flag::arithmetic | flag::df);
        std::copy(bytes.begin(), bytes.end(), page.begin());
        tcg::ir::Block block;
        lift_block(Interpreted::mode, *max, {page.data(), nullptr, 0}, {.max_insns = 1}, block);
        if (random() % 2) tcg::ir::optimize(block);
        interpreted->use_tlb(base, random() % 2);

        Machine ours = start, theirs = start;
        std::memcpy(buffer, start.data.data(), data_bytes);
        if (!interpreted->run(block, ours)) continue; // #DE, #GP: raised before anything is changed; not run natively
        std::memcpy(ours.data.data(), buffer, data_bytes);
        std::memcpy(buffer, start.data.data(), data_bytes);
        native.run({bytes.data(), d.insn.length}, theirs);
        std::memcpy(theirs.data.data(), buffer, data_bytes);

        ++done;
        seen[d.insn.mnemonic] = true;
        std::uint64_t const undefined = d.insn.cpu_flags ? d.insn.cpu_flags->undefined : 0;
        std::uint64_t const mask = compared_flags & ~undefined;
        bool const same = ours.gpr == theirs.gpr && ours.data == theirs.data && !((ours.flags ^ theirs.flags) & mask);
        if (same) continue;
        ++failures;
        std::string hex;
        for (unsigned i = 0; i < d.insn.length; ++i) hex += fmt::format("{:02x} ", bytes[i]);
        X86Names const names;
        ADD_FAILURE() << ZydisMnemonicGetString(d.insn.mnemonic) << " " << hex << "\nstart  " << describe(start)
                      << "\nours   " << describe(ours) << "\ntheirs " << describe(theirs)
                      << (ours.data == theirs.data ? "" : "\nmemory differs") << fmt::format("\nmask {:x}\n", mask)
                      << tcg::ir::to_text(block, &names);
    }
    EXPECT_GE(std::count(seen.begin(), seen.end(), true), 120) << "too few mnemonics came up";
}

} // namespace
#endif
