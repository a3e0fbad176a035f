// Two engines in lockstep: the same inputs keep them together, and a planted mistake in either is found in its block.
#include "tests/support/fake_cpu_bus.h"
#include "vmm/tcg/engine/lockstep_vcpu.h"
#include "vmm/tcg/x64/backend.h"

#include <gtest/gtest.h>

#include <cstring>

using namespace vmm;
using namespace vmm::x86;

namespace {

// An engine that makes a mistake after some blocks.
class Wrong final : public tcg::Backend {
public:
    Wrong(tcg::EngineContext& context, tcg::GuestInfo const& guest, std::function<void(tcg::x86::X86Context&)> mistake)
        : context_(context), right_(tcg::make_interpreter(context, guest)), mistake_(std::move(mistake)) {}
    std::unique_ptr<tcg::Translation> translate(tcg::ir::Block const& block) override {
        return right_->translate(block);
    }
    tcg::RunResult run(tcg::Translation& first) override {
        auto end = right_->run(first);
        if (++runs_ == wrong_run) mistake_(tcg::x86::from(context_));
        return end;
    }
    void link(tcg::LinkSite& site, tcg::Translation& to) override { right_->link(site, to); }
    void unlink(tcg::Translation& to) override { right_->unlink(to); }
    char const* name() const override { return "wrong"; }
    static constexpr unsigned wrong_run = 50;

private:
    tcg::EngineContext& context_;
    std::unique_ptr<tcg::Backend> right_;
    std::function<void(tcg::x86::X86Context&)> mistake_;
    unsigned runs_ = 0;
};

tcg::BackendFactory wrong(std::function<void(tcg::x86::X86Context&)> mistake) {
    return [=](tcg::EngineContext& context, tcg::GuestInfo const& guest) {
        return std::make_unique<Wrong>(context, guest, mistake);
    };
}

std::unique_ptr<tcg::Backend> jit(tcg::EngineContext& context, tcg::GuestInfo const& guest) {
    return tcg::x64::X64Backend::create(context, guest, {.cache_bytes = 4u << 20, .count_instructions = true}).value();
}

constexpr GuestPhys code = 0x1000, counter = 0x2000, handler = 0x3000;

struct Lockstep : testing::Test {
    std::unique_ptr<RamBlock> ram = RamBlock::create("ram", 0x10000).value();
    AddressSpace memory{"memory", ~std::uint64_t(0)};
    test::FakeCpuBus bus{memory};
    Log log{"test"};
    std::unique_ptr<tcg::LockstepVcpu> cpu;

    std::uint32_t answers = 0;

    void SetUp() override {
        bus.on_port_read = [this](std::uint16_t, unsigned) { return ++answers; }; // never the same twice
        memory.map({.name = "ram", .range = AddressRange::of(0, 0x10000), .backing = Backing::of_ram(*ram)});
        // inc bx; mov [0x2000],bx; in al,0x40; rdrand cx; rdtsc; add ax,[0x2000]; jmp back
        put(code, {0x43, 0x89, 0x1e, 0x00, 0x20, 0xe4, 0x40, 0x0f, 0xc7, 0xf1, 0x0f, 0x31, 0x03, 0x06, 0x00, 0x20, 0xeb,
                   0xee});
        put(0x100, {0x00, 0x30, 0x00, 0x00}); // vector 0x40: 0000:3000
        put(handler, {0x46, 0xcf});           // inc si; iret
    }
    void put(GuestPhys at, std::initializer_list<std::uint8_t> bytes) {
        std::copy(bytes.begin(), bytes.end(), ram->host() + at);
    }
    void make(tcg::BackendFactory first, tcg::BackendFactory second) {
        std::vector<std::string> warnings;
        cpu = tcg::LockstepVcpu::create({.bus = bus,
                                         .log = log,
                                         .model = make_cpu_model("max", tcg_features(), warnings).value(),
                                         .first = std::move(first),
                                         .second = std::move(second),
                                         .whole_memory_every = 64})
                  .value();
        State s = reset_state(0, true);
        s.seg[cs].base = s.seg[cs].selector = 0;
        s.rip = code;
        s.gpr[rsp] = 0x8000;
        s.rflags |= flag::if_;
        s.cr4 = cr4::osfxsr;
        cpu->set_state(s);
    }
};

} // namespace

TEST_F(Lockstep, the_same_inputs_and_interrupts_keep_the_engines_together) {
    make(tcg::x64::supported() ? tcg::BackendFactory(jit) : tcg::make_interpreter, tcg::make_interpreter);
    for (int i = 0; i < 20; ++i) {
        bus.pending = true;
        ASSERT_EQ(cpu->run(700), ExitReason::requested) << cpu->error_text();
    }
    EXPECT_EQ(cpu->state().gpr[rsi], 20u);
    EXPECT_GT(cpu->state().gpr[rbx], 1000u);
    EXPECT_GT(cpu->blocks(), 1000u);
}

TEST_F(Lockstep, a_wrong_register_is_reported_with_its_block_and_both_values) {
    make(tcg::make_interpreter, wrong([](tcg::x86::X86Context& c) { c.state.gpr[rbx] ^= 0x100; }));
    ASSERT_EQ(cpu->run(100'000), ExitReason::internal_error);
    EXPECT_EQ(cpu->blocks(), Wrong::wrong_run);
    std::string text = cpu->error_text();
    EXPECT_NE(text.find("registers differ"), std::string::npos) << text;
    EXPECT_NE(text.find("gpr[3]: 0x32 against 0x132"), std::string::npos) << text;
    EXPECT_NE(text.find("inc %bx"), std::string::npos) << text;
    EXPECT_EQ(cpu->run(0), ExitReason::internal_error); // and stays there
}

TEST_F(Lockstep, a_wrong_store_is_reported_at_its_address) {
    make(tcg::make_interpreter,
         wrong([](tcg::x86::X86Context& c) { *c.bus->memory().ram_pointer(counter, 1, true) ^= 1; }));
    ASSERT_EQ(cpu->run(100'000), ExitReason::internal_error);
    EXPECT_EQ(cpu->blocks(), Wrong::wrong_run);
    EXPECT_NE(cpu->error_text().find("ram+0x2000: 32 in the original, 33 in the copy"), std::string::npos)
        << cpu->error_text();
}

TEST_F(Lockstep, a_stray_write_of_the_first_engine_is_found_when_all_memory_is_compared) {
    make(wrong([](tcg::x86::X86Context& c) { *c.bus->memory().ram_pointer(0x9876, 1, true) = 1; }),
         tcg::make_interpreter);
    ASSERT_EQ(cpu->run(100'000), ExitReason::internal_error);
    EXPECT_EQ(cpu->blocks(), 64u);
    EXPECT_NE(cpu->error_text().find("ram+0x9876"), std::string::npos) << cpu->error_text();
}

TEST_F(Lockstep, an_access_that_only_one_engine_makes_is_a_difference) {
    make(tcg::make_interpreter, wrong([](tcg::x86::X86Context& c) { c.bus->port_write(0x80, 1, 7); }));
    ASSERT_EQ(cpu->run(100'000), ExitReason::internal_error);
    EXPECT_NE(cpu->error_text().find("only the second engine made the access: port write"), std::string::npos)
        << cpu->error_text();
}
