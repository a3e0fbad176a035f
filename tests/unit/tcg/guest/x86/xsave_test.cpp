// XSAVE images: what the host's XSAVE and XSAVEC wrote, our XRSTOR reads, and our XSAVE and XSAVEC write the same
// again.
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"

#include <gtest/gtest.h>
#include <xbyak/xbyak.h>
#include <xbyak/xbyak_util.h>

#include <cstring>
#include <memory>

namespace vmm::tcg::x86 {
void update_mode(X86Context&) {} // nothing here depends on the mode word's derived parts
} // namespace vmm::tcg::x86

namespace {

using namespace vmm::tcg::x86;

struct Area {
    alignas(64) std::uint8_t bytes[832];
};

// Fills some registers, then XSAVE64 or XSAVEC64 of x87, SSE and AVX to [rdi].
class HostSave : public Xbyak::CodeGenerator {
public:
    explicit HostSave(bool compacted) {
        fld1();
        fldpi();
        mov(rax, 0x123456789abcdef);
        vmovq(xmm3, rax);
        vmovddup(ymm3, ymm3);
        vinsertf128(ymm9, ymm3, xmm3, 1);
        mov(eax, 7);
        xor_(edx, edx);
        for (int b : {0x48, 0x0f, compacted ? 0xc7 : 0xae, 0x27}) db(b);
        fstp(st0);
        fstp(st0);
        vzeroupper();
        ret();
    }
};

TEST(Xsave, images_of_the_host_survive_restoring_and_saving) {
    Xbyak::util::Cpu cpu;
    if (!cpu.has(Xbyak::util::Cpu::tAVX)) GTEST_SKIP() << "the host has no AVX";
    std::vector<std::string> warnings;
    auto model = vmm::x86::make_cpu_model("max", vmm::x86::tcg_features(), warnings);
    ASSERT_TRUE(model.ok());
    for (bool compacted : {false, true}) {
        auto bank = std::make_unique<vmm::tcg::TlbBank>();
        vmm::tcg::MemoryOps ops{};
        ops.load = [](vmm::tcg::EngineContext&, std::uint64_t va, unsigned n, void* to) {
            return std::memcpy(to, reinterpret_cast<void*>(va), n), true;
        };
        ops.store = [](vmm::tcg::EngineContext&, std::uint64_t va, unsigned n, void const* from) {
            return std::memcpy(reinterpret_cast<void*>(va), from, n), true;
        };
        auto c = std::make_unique<X86Context>();
        c->engine.bank = bank.get();
        c->engine.memory = &ops;
        c->engine.mode = Mode::code64 | Mode::protected_mode | Mode::long_mode;
        c->model = &model.value();
        c->state.cr4 |= vmm::x86::cr4::osxsave;
        c->state.xcr0 = 7;
        c->state.gpr[vmm::x86::rax] = 7;
        auto host = std::make_unique<Area>(), ours = std::make_unique<Area>();
        std::memset(host.get(), 0, sizeof(Area));
        std::memset(ours.get(), 0, sizeof(Area));
        HostSave(compacted).getCode<void (*)(void*)>()(host->bytes);
        helper::xrstor(*c, std::uint64_t(host->bytes), std::uint64_t(XsaveForm::restore) | xsave_wide, 0);
        ASSERT_FALSE(c->faulted());
        auto form = compacted ? XsaveForm::compacted : XsaveForm::save;
        helper::xsave(*c, std::uint64_t(ours->bytes), std::uint64_t(form) | xsave_wide, 0);
        ASSERT_FALSE(c->faulted());
        std::memset(host->bytes + 6, 0, 2); // FOP: hardware may keep it
        std::memset(ours->bytes + 6, 0, 2);
        for (unsigned i = 0; i < sizeof(Area); i++)
            ASSERT_EQ(host->bytes[i], ours->bytes[i]) << "byte " << i << (compacted ? " compacted" : "");
    }
}

} // namespace
