// Repeated string instructions: what faults, exit requests and overlaps leave behind.
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/string_op.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace {

using namespace vmm::tcg;
using namespace vmm::tcg::x86;

constexpr std::uint64_t own_address = 0x1000, next_address = 0x1002;

// A 64-bit guest whose addresses are host addresses; stores into the last of three pages fault.
class StringTest : public testing::Test {
protected:
    StringTest() {
        base = (reinterpret_cast<std::uint64_t>(storage.get()) + 4095) & ~std::uint64_t(4095);
        c->engine.memory = &memory;
        c->engine.bank = bank.get();
        c->engine.mode = Mode::code64 | Mode::protected_mode | Mode::long_mode;
        c->state.rip = next_address;
        c->fault.address = base + 8192;
        for (unsigned i = 0; i < 12288; ++i) at(i) = std::uint8_t(i * 7);
        for (std::uint64_t page = base; page < base + 8192; page += 4096)
            for (auto* table : {&bank->read, &bank->write}) (*table)[TlbBank::slot(page)] = {.tag = page, .addend = 0};
    }
    std::uint8_t& at(std::uint64_t offset) { return *reinterpret_cast<std::uint8_t*>(base + offset); }
    std::uint64_t& reg(Gpr r) { return c->state.gpr[r]; }
    void set(std::uint64_t source, std::uint64_t destination, std::uint64_t count) {
        reg(rsi) = base + source, reg(rdi) = base + destination, reg(rcx) = count;
    }
    static constexpr std::uint64_t op(std::uint8_t bytes, Repeat repeat = Repeat::rep) {
        return std::uint64_t(StringOp{bytes, 8, ds, repeat}.encode());
    }

    static constexpr MemoryOps memory = {
        .load = [](EngineContext&, std::uint64_t va, unsigned size,
                   void* to) { return std::memcpy(to, reinterpret_cast<void*>(va), size), true; },
        .store =
            [](EngineContext& e, std::uint64_t va, unsigned size, void const* data) {
                X86Context& context = from(e);
                if (va + size > context.fault.address) return context.raise_page_fault(va, 2), false;
                return std::memcpy(reinterpret_cast<void*>(va), data, size), true;
            },
        .rmw_pointer = nullptr,
        .rmw_lock = nullptr,
        .rmw_unlock = nullptr,
        .divide_error = nullptr,
        .alignment_fault = nullptr,
    };
    std::unique_ptr<std::uint8_t[]> storage = std::make_unique<std::uint8_t[]>(16384);
    std::unique_ptr<X86Context> c = std::make_unique<X86Context>();
    std::unique_ptr<TlbBank> bank = std::make_unique<TlbBank>();
    std::uint64_t base = 0;
};

TEST_F(StringTest, a_copy_onto_the_bytes_just_ahead_replicates) {
    at(0) = 0x5a;
    set(0, 1, 5000);
    helper::rep_movs(*c, op(1), own_address, 0);
    for (unsigned i = 0; i <= 5000; ++i) ASSERT_EQ(at(i), 0x5a) << i;
    EXPECT_EQ(reg(rcx), 0u);
    EXPECT_EQ(reg(rdi), base + 5001);
    EXPECT_EQ(c->state.rip, next_address);
}

TEST_F(StringTest, a_fault_leaves_exactly_what_was_not_done) {
    set(0, 8192 - 24, 10);
    helper::rep_movs(*c, op(8), own_address, 0);
    EXPECT_TRUE(c->faulted());
    EXPECT_EQ(c->fault.address, base + 8192);
    EXPECT_EQ(reg(rcx), 7u);
    EXPECT_EQ(reg(rsi), base + 24);
    EXPECT_EQ(reg(rdi), base + 8192);
}

TEST_F(StringTest, an_element_across_the_faulting_page_is_not_started) {
    set(0, 8192 - 12, 3);
    helper::rep_stos(*c, op(8), own_address, 0);
    EXPECT_TRUE(c->faulted());
    EXPECT_EQ(reg(rcx), 2u);
    EXPECT_EQ(reg(rdi), base + 8192 - 4);
}

TEST_F(StringTest, an_exit_request_stops_after_a_page_and_the_instruction_starts_again) {
    set(0, 4096 - 16, 100);
    c->engine.exit_request = 1;
    helper::rep_stos(*c, op(1), own_address, 0);
    EXPECT_EQ(reg(rcx), 84u);
    EXPECT_EQ(c->state.rip, own_address);
    c->engine.exit_request = 0, c->state.rip = next_address;
    helper::rep_stos(*c, op(1), own_address, 0);
    EXPECT_EQ(reg(rcx), 0u);
    EXPECT_EQ(c->state.rip, next_address);
}

TEST_F(StringTest, a_scan_stops_behind_the_element_found_with_its_flags) {
    std::memset(&at(0), 0, 8192);
    at(5000) = 1;
    reg(rax) = 1;
    set(0, 0, 8000);
    helper::rep_scas(*c, op(1, Repeat::repne), own_address, 0);
    EXPECT_EQ(reg(rdi), base + 5001);
    EXPECT_EQ(reg(rcx), 8000u - 5001);
    EXPECT_TRUE(c->rflags() & flag::zf);
}

TEST_F(StringTest, with_a_count_of_0_nothing_changes) {
    set(0, 8192, 0);
    set_cc_raw(c->engine, flag::cf);
    helper::rep_cmps(*c, op(4), own_address, 0);
    EXPECT_FALSE(c->faulted());
    EXPECT_EQ(c->rflags() & flag::arithmetic, flag::cf);
    EXPECT_EQ(reg(rdi), base + 8192);
}

TEST_F(StringTest, downward_copies_go_element_by_element) {
    c->state.rflags |= flag::df;
    set(4096 + 8, 4096 + 16, 3);
    std::uint64_t first = 0, moved = 0;
    std::memcpy(&first, &at(4096 - 8), 8);
    helper::rep_movs(*c, op(8), own_address, 0);
    std::memcpy(&moved, &at(4096), 8);
    EXPECT_EQ(moved, first);
    EXPECT_EQ(reg(rsi), base + 4096 - 16);
}

} // namespace
