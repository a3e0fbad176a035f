// What x86_diff found once, written by hand: each on the host CPU, the interpreter and the JIT.
#include "tests/diff/guest_runner.h"
#include "tests/diff/native_runner.h"
#include "tests/diff/rules.h"
#include "vmm/tcg/x64/backend.h"

#include <gtest/gtest.h>

#include <cstring>

namespace vmm::diff {
namespace {

std::unique_ptr<tcg::Backend> make_jit(tcg::EngineContext& context, tcg::GuestInfo const& guest) {
    auto made = tcg::x64::X64Backend::create(context, guest, {.cache_bytes = 16u << 20, .count_instructions = true});
    return made ? std::move(*made) : nullptr;
}

constexpr std::uint64_t middle_of_data = data_base + 0x800, middle_of_stack = stack_base + 0x1000;

// A sequence of these bytes, an INT3 behind them.
Sequence sequence_of(std::vector<std::uint8_t> code, bool long_mode = true) {
    Sequence q;
    q.long_mode = long_mode;
    ZydisDecoder decoder;
    ZydisDecoderInit(&decoder, long_mode ? ZYDIS_MACHINE_MODE_LONG_64 : ZYDIS_MACHINE_MODE_LEGACY_32,
                     long_mode ? ZYDIS_STACK_WIDTH_64 : ZYDIS_STACK_WIDTH_32);
    for (unsigned offset = 0; offset < code.size();) {
        ZydisDecodedInstruction d;
        ZydisDecodedOperand operands[ZYDIS_MAX_OPERAND_COUNT];
        if (!ZYAN_SUCCESS(ZydisDecoderDecodeFull(&decoder, &code[offset], code.size() - offset, &d, operands))) {
            ADD_FAILURE() << "no instruction at " << offset;
            break;
        }
        Sequence::Instruction insn = effects(d, operands);
        insn.offset = offset, insn.length = d.length;
        q.instructions.push_back(insn);
        offset += d.length;
    }
    EXPECT_TRUE(track_flags(q));
    code.push_back(0xcc);
    q.code = std::move(code);
    q.start.rip = code_base;
    q.start.gpr[4] = middle_of_stack;
    return q;
}

template <class T> void put(Sequence& q, std::uint64_t address, T value) {
    std::memcpy(&q.data[address - data_base], &value, sizeof value);
}

class X86Cases : public testing::Test {
protected:
    void SetUp() override {
        if (!tcg::x64::supported()) GTEST_SKIP() << "this host CPU lacks AVX2 or BMI2";
    }
    // How the host ended; both engines are to have ended alike.
    Outcome const& same_everywhere(Sequence const& q) {
        NativeRunner native;
        EXPECT_TRUE(native.run(q, host_)) << native.failure();
        compare_with("interpreter", tcg::make_interpreter, q);
        compare_with("JIT", make_jit, q);
        return host_;
    }

private:
    void compare_with(char const* name, tcg::BackendFactory const& factory, Sequence const& q) {
        GuestRunner guest(factory);
        guest.run(q, guest_);
        EXPECT_EQ(compare(q, host_, guest_), "") << name << "\n" << describe(q);
    }
    Outcome host_, guest_;
};

constexpr int breakpoint = 3, simd_exception = 19;

TEST_F(X86Cases, xadd_into_the_register_an_earlier_test_is_remembered_by_keeps_its_flags) {
    // TEST CX, 2F68; XADD [R15], ECX
    Sequence q = sequence_of({0x66, 0xf7, 0xc1, 0x68, 0x2f, 0x41, 0x0f, 0xc1, 0x0f});
    q.start.gpr[15] = middle_of_data;
    put(q, middle_of_data, 0x80000001u);
    Outcome const& host = same_everywhere(q);
    EXPECT_EQ(host.vector, breakpoint);
    EXPECT_EQ(host.registers.rflags & 0xc0, 0x80u);
}

TEST_F(X86Cases, unmasked_underflow_is_raised_by_an_exact_denormal_result) {
    for (bool packed : {false, true}) {
        // MULSD or MULPD XMM0, XMM1: 2^-1022 * 0.5
        Sequence q = sequence_of({std::uint8_t(packed ? 0x66 : 0xf2), 0x0f, 0x59, 0xc1});
        q.start.ymm[0] = {0x0010000000000000, 0x0010000000000000, 0, 0};
        q.start.ymm[1] = {packed ? 0x3ff0000000000000u : 0x3fe0000000000000u, 0x3fe0000000000000, 0, 0};
        q.start.mxcsr = 0x1f80 & ~0x800u;
        Outcome const& host = same_everywhere(q);
        EXPECT_EQ(host.vector, simd_exception);
        EXPECT_EQ(host.registers.ymm[0][0], 0x0010000000000000u) << "the destination is kept";
    }
}

TEST_F(X86Cases, unmasked_underflow_of_one_scalar_does_not_look_at_the_elements_beside_it) {
    // ADDSS XMM0, XMM1: 1 + 1; the upper elements of XMM0 are denormals.
    Sequence q = sequence_of({0xf3, 0x0f, 0x58, 0xc1});
    q.start.ymm[0] = {0x000000013f800000, 0x0000000100000001, 0, 0};
    q.start.ymm[1] = {0x3f800000, 0, 0, 0};
    q.start.mxcsr = 0x1f80 & ~0x800u;
    EXPECT_EQ(same_everywhere(q).vector, breakpoint);
}

TEST_F(X86Cases, a_stepped_gather_traps_once_at_its_end) {
    // VPGATHERDD YMM0, [R14 + YMM1 * 4], YMM2
    Sequence q = sequence_of({0xc4, 0xc2, 0x6d, 0x90, 0x04, 0x8e});
    q.start.gpr[14] = middle_of_data;
    q.start.ymm[1] = {0x0000000100000000, 0x0000000300000002, 0x0000000500000004, 0x0000000700000006};
    q.start.ymm[2] = {~0ull, ~0ull, ~0ull, ~0ull};
    q.start.rflags = 0x302;
    Outcome const& host = same_everywhere(q);
    EXPECT_EQ(host.vector, 1);
    EXPECT_EQ(host.registers.rip, code_base + 6);
    EXPECT_EQ(host.registers.ymm[2][3], 0u);
}

TEST_F(X86Cases, a_stepped_gather_that_faults_after_some_elements_traps_instead) {
    // VPGATHERDD YMM0, [R14 + YMM1 * 4], YMM2; the element at `bad` lies behind the data.
    for (unsigned bad : {0, 2}) {
        Sequence q = sequence_of({0xc4, 0xc2, 0x6d, 0x90, 0x04, 0x8e});
        q.start.gpr[14] = middle_of_data;
        q.start.ymm[1][bad / 2] = 0x10000;
        q.start.ymm[2] = {~0ull, ~0ull, ~0ull, ~0ull};
        q.start.rflags = 0x302;
        Outcome const& host = same_everywhere(q);
        EXPECT_EQ(host.vector, bad ? 1 : 14);
        EXPECT_EQ(host.registers.rip, code_base);
    }
}

TEST_F(X86Cases, alignment_checks_of_x87_images_go_by_their_words) {
    struct {
        std::vector<std::uint8_t> code;
        std::uint64_t offset;
        int vector;
    } const cases[] = {
        {{0xdd, 0x33}, 4, breakpoint},       {{0xdd, 0x33}, 2, 17},       // FNSAVE [RBX]
        {{0x66, 0xdd, 0x33}, 2, breakpoint}, {{0x66, 0xdd, 0x33}, 1, 17}, // its 16-bit form
        {{0xd9, 0x33}, 4, breakpoint},       {{0xd9, 0x33}, 2, 17},       // FNSTENV
        {{0xdb, 0x2b}, 8, breakpoint},       {{0xdb, 0x2b}, 4, 17},       // FLD m80
        {{0xdb, 0x3b}, 8, breakpoint},       {{0xdb, 0x3b}, 4, 17},       // FSTP m80
        {{0xdf, 0x23}, 8, breakpoint},       {{0xdf, 0x23}, 4, 17},       // FBLD
        {{0xdb, 0x13}, 4, breakpoint},       {{0xdb, 0x13}, 2, 17},       // FIST m32
    };
    for (auto const& each : cases) {
        Sequence q = sequence_of(each.code);
        q.start.gpr[3] = data_base + 0x1000 - 64 + each.offset; // images cross a page
        q.start.rflags = 0x40202;
        EXPECT_EQ(same_everywhere(q).vector, each.vector) << describe(q);
    }
}

TEST_F(X86Cases, an_unmasked_x87_exception_comes_before_the_alignment_of_the_store_it_forbids) {
    Sequence q = sequence_of({0xdb, 0x13}); // FIST dword [RBX] of an empty register
    q.start.gpr[3] = data_base + 2;
    q.start.fcw = 0x37e;
    q.start.rflags = 0x40202;
    EXPECT_EQ(same_everywhere(q).vector, breakpoint);
}

TEST_F(X86Cases, gathers_masked_moves_and_halves_do_not_check_alignment) {
    // VPGATHERDD YMM0, [R14 + YMM1 * 4], YMM2; VMASKMOVPS [R14 + BD], YMM2, YMM7; VCVTPS2PH [R14], XMM0, 0;
    // VCVTPH2PS XMM0, [R14]
    for (auto const& code : {std::vector<std::uint8_t>{0xc4, 0xc2, 0x6d, 0x90, 0x04, 0x8e},
                             {0xc4, 0xc2, 0x6d, 0x2e, 0xbe, 0xbd, 0x00, 0x00, 0x00},
                             {0xc4, 0xc3, 0x79, 0x1d, 0x06, 0x00},
                             {0xc4, 0xc2, 0x79, 0x13, 0x06}}) {
        Sequence q = sequence_of(code);
        q.start.gpr[14] = middle_of_data + 1;
        q.start.ymm[2] = {~0ull, ~0ull, ~0ull, ~0ull};
        q.start.rflags = 0x40202;
        EXPECT_EQ(same_everywhere(q).vector, breakpoint);
    }
}

TEST_F(X86Cases, an_address_that_is_not_canonical_faults_as_such_before_its_alignment_counts) {
    Sequence q = sequence_of({0xc9}); // LEAVE
    q.start.gpr[5] = 0x23fe6c10c393a0ff;
    q.start.rflags = 0x40202;
    EXPECT_EQ(same_everywhere(q).vector, 12);
}

TEST_F(X86Cases, cmpxchg8b_across_cache_lines_exchanges_and_reports) {
    for (bool equal : {true, false}) {
        Sequence q = sequence_of({0x41, 0x0f, 0xc7, 0x0e}); // CMPXCHG8B [R14]
        q.start.gpr[14] = data_base + 64 - 3;
        q.start.gpr[0] = 0x11223344, q.start.gpr[2] = equal ? 0x55667788 : 0;
        q.start.gpr[3] = 0xaabbccdd, q.start.gpr[1] = 0x99887766;
        put(q, data_base + 64 - 3, 0x5566778811223344);
        EXPECT_EQ(bool(same_everywhere(q).registers.rflags & 0x40), equal);
    }
}

TEST_F(X86Cases, a_load_that_an_unmasked_invalid_operation_forbids_clears_c1_all_the_same) {
    Sequence q = sequence_of({0xdd, 0x03, 0x9b}); // FLD qword [RBX]; FWAIT
    q.start.gpr[3] = middle_of_data;
    put(q, middle_of_data, 0x7ff0000000000001); // a signalling NaN
    q.start.fcw = 0x37e;
    q.start.fsw = 0x200;
    Outcome const& host = same_everywhere(q);
    EXPECT_EQ(host.vector, 16);
    EXPECT_EQ(host.registers.fsw & 0x200, 0);
}

TEST_F(X86Cases, a_repeated_store_that_overwrites_itself_ends_there) {
    // REP STOSD of zeros from 12 bytes before it, which become ADD [RAX], AL; within a page, and across two.
    for (unsigned offset : {0u, 0x1000u - 13}) {
        Sequence q = sequence_of({0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0x90, 0xf3, 0xab});
        q.code_offset = offset;
        q.start.rip = code_base + offset + 12;
        q.start.gpr[7] = code_base + offset;
        q.start.gpr[1] = 100;
        Outcome const& host = same_everywhere(q);
        EXPECT_EQ(host.vector, 14);
        EXPECT_EQ(host.registers.gpr[1], 96u);
    }
}

TEST_F(X86Cases, accesses_across_the_border_to_addresses_that_are_not_canonical_fault_like_the_host_s) {
    // MASKMOVDQU XMM0, XMM1; MASKMOVQ MM0, MM1; MOV RAX, [RDI]; MOVUPS [RDI], XMM0
    for (auto const& code : {std::vector<std::uint8_t>{0x66, 0x0f, 0xf7, 0xc1},
                             {0x0f, 0xf7, 0xc1},
                             {0x48, 0x8b, 0x07},
                             {0x0f, 0x11, 0x07}})
        for (std::uint64_t border : {0x0000800000000000u, 0xffff800000000000u})
            for (std::uint64_t bytes_before = 1; bytes_before <= 16; ++bytes_before) {
                Sequence q = sequence_of(code);
                q.start.gpr[7] = border - bytes_before;
                same_everywhere(q);
            }
}

TEST_F(X86Cases, ten_bytes_are_stored_as_eight_and_two) {
    // FSTP tbyte [RBX], FBSTP [RBX], around the border to a page that cannot be written.
    for (std::uint8_t opcode : {0xdb, 0xdf})
        for (unsigned bytes_before : {1, 2, 7, 8, 9}) {
            Sequence q = sequence_of({opcode, std::uint8_t(opcode == 0xdb ? 0x3b : 0x33)});
            q.start.gpr[3] = data_base + data_writable - bytes_before;
            q.start.tags = 0xff;
            q.start.st[0] = {1, 2, 3, 4, 5, 6, 7, 0x88, 0x20, 0x40};
            EXPECT_EQ(same_everywhere(q).vector, 14);
        }
}

TEST_F(X86Cases, a_bit_far_from_a_stack_operand_is_a_stack_access_still) {
    Sequence q = sequence_of({0x0f, 0xab, 0x6d, 0x5f}); // BTS [RBP + 5F], EBP
    q.start.gpr[5] = 0x97f8cfab5300e050;
    EXPECT_EQ(same_everywhere(q).vector, 12);
}

TEST_F(X86Cases, a_segment_of_4_gib_does_not_stop_what_goes_on_past_its_end) {
    Sequence q = sequence_of({0xf2, 0xaf}, false); // REPNE SCASD
    q.start.gpr[7] = 0xffffffff;
    q.start.gpr[1] = 10;
    EXPECT_EQ(same_everywhere(q).vector, 14);
}

} // namespace
} // namespace vmm::diff
