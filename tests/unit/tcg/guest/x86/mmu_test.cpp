// Paging against an oracle written from the rules of SDM vol. 3 chapter 4, and what the TLB banks may hold when.
#include "tests/support/fake_cpu_bus.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/mmu.h"
#include "vmm/tcg/guest/x86/system.h"

#include <gtest/gtest.h>

#include <cstring>
#include <memory>

namespace {

using namespace vmm;
using namespace vmm::tcg;
using namespace vmm::tcg::x86;

constexpr std::uint64_t ram_bytes = 8u << 20;

enum class Kind { bits32, pae, long4 };

struct Machine {
    Machine() {
        ram = RamBlock::create("ram", ram_bytes).value();
        space.map({.name = "ram", .range = AddressRange::of(0, ram_bytes), .backing = Backing::of_ram(*ram)});
        std::vector<std::string> warnings;
        model = make_cpu_model("max", tcg_features(), warnings).value();
        context->model = &model;
        context->state = reset_state(0, true);
        mmu = std::make_unique<Mmu>(*context, bus, model, lock);
    }

    template <class T> void put(std::uint64_t phys, T v) { std::memcpy(ram->host() + phys, &v, sizeof v); }
    std::uint64_t entry(std::uint64_t phys, unsigned bytes) const {
        std::uint64_t v = 0;
        std::memcpy(&v, ram->host() + phys, bytes);
        return v;
    }

    void enter(Kind kind, std::uint64_t cr4_bits, bool wp, bool nxe, unsigned cpl) {
        State& s = context->state;
        s.cr0 = cr0::pe | cr0::pg | (wp ? cr0::wp : 0);
        s.cr3 = root;
        s.cr4 = cr4_bits | (kind == Kind::bits32 ? 0 : cr4::pae);
        s.efer = (nxe ? efer::nxe : 0) | (kind == Kind::long4 ? efer::lme | efer::lma : 0);
        std::uint16_t const code = kind == Kind::long4 ? 0xa09b : 0xc09b, data = 0xc093;
        s.seg[cs] = {.base = 0, .limit = ~0u, .attributes = std::uint16_t(code | cpl << 5), .selector = 8};
        s.seg[ss] = {.base = 0, .limit = ~0u, .attributes = std::uint16_t(data | cpl << 5), .selector = 16};
        s.seg[cs].selector |= cpl, s.seg[ss].selector |= cpl;
        state_replaced(*context);
    }

    static constexpr std::uint64_t root = 0x1000, table3 = 0x2000, directory = 0x3000, table = 0x4000;
    Log log{"test"};
    AddressSpace space{"memory", ~std::uint64_t(0)};
    std::unique_ptr<RamBlock> ram;
    test::FakeCpuBus bus{space};
    CpuModel model;
    std::mutex lock;
    std::unique_ptr<X86Context> context = std::make_unique<X86Context>();
    std::unique_ptr<Mmu> mmu;
};

// One case of the matrix: what directory entry and leaf say, how the CPU is set up, who asks for what.
struct Case {
    Kind kind;
    bool large, present, write, user, nx, directory_write, directory_user, directory_nx, reserved;
    bool wp, smep, smap, nxe, ac;
    unsigned cpl;
    Access access;
};

struct Expected {
    bool allowed;
    std::uint32_t error;
};

// SDM vol. 3 4.6 and 4.7, in the order of the text.
Expected oracle(Case const& c) {
    bool const has_nx = c.kind != Kind::bits32 && c.nxe;
    bool const user_page = c.user && (c.large || c.directory_user);
    bool const writable = c.write && (c.large || c.directory_write);
    bool const no_execute = has_nx && (c.nx || (!c.large && c.directory_nx));
    bool const user_mode = c.cpl == 3;
    std::uint32_t error = (c.access == Access::write ? 2 : 0) | (user_mode ? 4 : 0);
    if (c.access == Access::execute && (has_nx || c.smep)) error |= 16;
    if (!c.large && c.kind != Kind::bits32 && !c.nxe && c.directory_nx) return {false, error | 9};
    if (!c.present) return {false, error};
    if (c.kind != Kind::bits32 && !c.nxe && c.nx) return {false, error | 9};
    if (c.reserved) return {false, error | 9};
    bool allowed = true;
    if (user_mode) {
        allowed = user_page;
        if (c.access == Access::write) allowed = allowed && writable;
    } else {
        if (user_page && c.access != Access::execute && c.smap && !c.ac) allowed = false;
        if (user_page && c.access == Access::execute && c.smep) allowed = false;
        if (c.access == Access::write && c.wp && !writable) allowed = false;
    }
    if (c.access == Access::execute && no_execute) allowed = false;
    return {allowed, allowed ? 0 : error | 1};
}

class PagingMatrix : public ::testing::TestWithParam<Kind> {
protected:
    // The tables for a case; returns the address to use, and where its leaf lies.
    std::uint64_t build(Case const& c, std::uint64_t& leaf_at) {
        std::uint64_t const nx_bit = std::uint64_t(1) << 63;
        std::uint64_t leaf = (c.present ? 1 : 0) | (c.write ? 2 : 0) | (c.user ? 4 : 0);
        std::uint64_t directory = 1 | (c.directory_write ? 2 : 0) | (c.directory_user ? 4 : 0) | Machine::table;
        bool const wide = c.kind != Kind::bits32;
        if (wide && c.nx) leaf |= nx_bit;
        if (wide && c.directory_nx) directory |= nx_bit;
        unsigned const large_bits = wide ? 21 : 22, bytes = wide ? 8 : 4;
        std::uint64_t const va = (std::uint64_t(1) << large_bits) * 3 + 0x5000 + 0x123;
        leaf |= c.large ? std::uint64_t(1) << large_bits | 0x80 : 0x7000;
        if (c.reserved) leaf |= wide ? std::uint64_t(1) << 51 : std::uint64_t(1) << 21;
        std::uint64_t const directory_table = wide ? Machine::directory : Machine::root;
        std::uint64_t const directory_at = directory_table + 3 * bytes;
        leaf_at = c.large ? directory_at : Machine::table + 5 * bytes;
        auto put = [&](std::uint64_t at, std::uint64_t v) {
            if (wide)
                m.put(at, v);
            else
                m.put(at, std::uint32_t(v));
        };
        if (c.kind == Kind::pae) m.put(Machine::root, Machine::directory | 1);
        if (c.kind == Kind::long4)
            m.put(Machine::root, Machine::table3 | 7), m.put(Machine::table3, Machine::directory | 7);
        if (!c.large) put(directory_at, directory);
        put(leaf_at, leaf);
        return va;
    }

    void check(Case const& c) {
        std::uint64_t leaf_at;
        std::uint64_t const va = build(c, leaf_at);
        m.enter(c.kind, (c.smep ? cr4::smep : 0) | (c.smap ? cr4::smap : 0) | cr4::pse, c.wp, c.nxe, c.cpl);
        Expected const want = oracle(c);
        View const view = c.cpl == 3 ? View::user : c.smap && !c.ac ? View::kernel_smap : View::kernel;
        TableCaches cache;
        std::uint32_t error = 0;
        auto got = m.mmu->walker().walk(va, c.access, view, cache, error);
        std::string const what = describe(c);
        ASSERT_EQ(got.has_value(), want.allowed) << what;
        unsigned const bytes = c.kind == Kind::bits32 ? 4 : 8;
        std::uint64_t const after = m.entry(leaf_at, bytes);
        if (!got) {
            EXPECT_EQ(error, want.error) << what;
            EXPECT_EQ(after & 0x60, 0u) << "A and D of a leaf that faulted: " << what;
            return;
        }
        std::uint64_t const large_base = c.kind == Kind::bits32 ? 0x400000 : 0x200000;
        EXPECT_EQ(got->phys, c.large ? large_base + 0x5123 : 0x7123u) << what;
        EXPECT_EQ(after & 0x60, c.access == Access::write ? 0x60u : 0x20u) << what;
    }

    static std::string describe(Case const& c) {
        return fmt::format(
            "kind {} large {} p {} w {} u {} nx {} pde w {} u {} nx {} rsvd {} wp {} smep {} smap {} nxe {} "
            "ac {} cpl {} access {}",
            int(c.kind), c.large, c.present, c.write, c.user, c.nx, c.directory_write, c.directory_user, c.directory_nx,
            c.reserved, c.wp, c.smep, c.smap, c.nxe, c.ac, c.cpl, int(c.access));
    }

    Machine m;
};

TEST_P(PagingMatrix, every_combination_of_rights_is_what_the_manual_says) {
    for (unsigned bits = 0; bits < 1u << 16; ++bits) {
        auto bit = [&](unsigned n) { return (bits >> n & 1) != 0; };
        if (bit(9) && !bit(1)) continue; // a reserved bit only where the entry is present
        // 4 MiB pages: bit 21 is reserved; 4 KiB entries of 32-bit paging have no reserved bits.
        if (bit(9) && GetParam() == Kind::bits32 && !bit(0)) continue;
        for (Access access : {Access::read, Access::write, Access::execute}) {
            check({.kind = GetParam(),
                   .large = bit(0),
                   .present = bit(1),
                   .write = bit(2),
                   .user = bit(3),
                   .nx = bit(4),
                   .directory_write = bit(5),
                   .directory_user = bit(6),
                   .directory_nx = bit(7),
                   .reserved = bit(9),
                   .wp = bit(10),
                   .smep = bit(11),
                   .smap = bit(12),
                   .nxe = bit(13),
                   .ac = bit(14),
                   .cpl = bit(15) ? 3u : 0u,
                   .access = access});
            if (HasFatalFailure()) return;
        }
        if (bit(8)) ++bits; // not used
    }
}

INSTANTIATE_TEST_SUITE_P(Modes, PagingMatrix, ::testing::Values(Kind::bits32, Kind::pae, Kind::long4));

// --- what the TLB may hold

class Tlb : public ::testing::Test {
protected:
    static constexpr std::uint64_t va = 0x5000, frame = 0x7000, leaf_at = Machine::table + 5 * 8;

    void map(std::uint64_t flags) {
        m.put(Machine::root, Machine::table3 | 7);
        m.put(Machine::table3, Machine::directory | 7);
        m.put(Machine::directory, Machine::table | 7);
        m.put(leaf_at, frame | flags);
    }
    void start(std::uint64_t cr4_bits = 0) { m.enter(Kind::long4, cr4_bits, true, true, 0); }
    bool readable() { return tlb_lookup(m.context->engine.bank->read, va, 1) != nullptr; }
    bool writable() { return tlb_lookup(m.context->engine.bank->write, va, 1) != nullptr; }
    void read() {
        std::uint8_t byte;
        EXPECT_TRUE(m.mmu->read(va, 1, &byte, m.mmu->view()));
    }
    void write() {
        std::uint8_t byte = 1;
        EXPECT_TRUE(m.mmu->write(va, 1, &byte, m.mmu->view()));
    }
    Machine m;
};

TEST_F(Tlb, reading_a_clean_page_allows_no_fast_write) {
    map(3);
    start();
    read();
    EXPECT_TRUE(readable());
    EXPECT_FALSE(writable());
    write();
    EXPECT_TRUE(writable());
    EXPECT_EQ(m.entry(leaf_at, 8) & 0x40, 0x40u);
}

TEST_F(Tlb, reading_a_dirty_page_allows_fast_writes_at_once) {
    map(0x63);
    start();
    m.ram->notes(frame).store(0);
    read();
    EXPECT_TRUE(writable());
}

TEST_F(Tlb, a_page_with_a_note_has_no_write_entry) {
    map(0x63);
    start();
    m.ram->notes(frame).store(page_has_code);
    read();
    EXPECT_TRUE(readable());
    EXPECT_FALSE(writable());
}

TEST_F(Tlb, dropping_write_entries_of_a_host_page_keeps_reads) {
    map(0x63);
    start();
    m.ram->notes(frame).store(0);
    write();
    m.mmu->drop_write_entries(m.ram->host() + frame);
    EXPECT_TRUE(readable());
    EXPECT_FALSE(writable());
}

TEST_F(Tlb, global_pages_survive_a_new_cr3_and_others_do_not) {
    for (bool global : {false, true}) {
        map(global ? 0x163 : 0x63);
        start(cr4::pge);
        read();
        EXPECT_TRUE(m.mmu->set_cr3(Machine::root, false));
        EXPECT_EQ(readable(), global);
        m.mmu->invalidate_page(va);
        EXPECT_FALSE(readable());
    }
}

TEST_F(Tlb, without_pge_no_page_is_global) {
    map(0x163);
    start();
    read();
    EXPECT_TRUE(m.mmu->set_cr3(Machine::root, false));
    EXPECT_FALSE(readable());
}

TEST_F(Tlb, pcids_keep_their_translations_when_bit_63_says_so) {
    map(0x63);
    start(cr4::pcide);
    EXPECT_TRUE(m.mmu->set_cr3(Machine::root | 1, false));
    read();
    EXPECT_TRUE(m.mmu->set_cr3(Machine::root | 2, false));
    EXPECT_FALSE(readable());
    EXPECT_TRUE(m.mmu->set_cr3(Machine::root | 1, true));
    EXPECT_TRUE(readable());
    EXPECT_TRUE(m.mmu->set_cr3(Machine::root | 1, false));
    EXPECT_FALSE(readable());
}

TEST_F(Tlb, invpcid_of_one_address_leaves_other_pcids) {
    map(0x63);
    start(cr4::pcide);
    for (std::uint64_t pcid : {1, 2}) {
        EXPECT_TRUE(m.mmu->set_cr3(Machine::root | pcid, false));
        read();
    }
    m.mmu->invalidate_pcid_page(1, va);
    EXPECT_TRUE(readable());
    EXPECT_TRUE(m.mmu->set_cr3(Machine::root | 1, true));
    EXPECT_FALSE(readable());
}

TEST_F(Tlb, invlpg_inside_a_large_page_forgets_all_of_it) {
    map(3);
    m.put(Machine::directory, std::uint64_t(0x2000e3));
    start();
    read();
    m.mmu->invalidate_page(0x100000);
    EXPECT_FALSE(readable());
}

TEST_F(Tlb, views_do_not_share_translations) {
    map(0x67);
    start(cr4::smap);
    std::uint8_t byte;
    EXPECT_TRUE(m.mmu->read(va, 1, &byte, View::kernel));
    EXPECT_FALSE(readable());
    EXPECT_FALSE(m.mmu->read(va, 1, &byte, m.mmu->view()));
    EXPECT_EQ(m.context->fault.vector, vec::pf);
    EXPECT_EQ(m.context->fault.error, 1u);
    EXPECT_EQ(m.context->fault.address, va);
}

TEST_F(Tlb, an_address_that_is_not_canonical_is_a_general_protection_fault) {
    map(0x63);
    start();
    std::uint8_t byte;
    EXPECT_FALSE(m.mmu->read(std::uint64_t(1) << 47, 1, &byte, m.mmu->view()));
    EXPECT_EQ(m.context->fault.vector, vec::gp);
}

TEST_F(Tlb, the_second_page_of_a_crossing_access_is_what_faults) {
    map(0x63);
    start();
    std::uint32_t value;
    EXPECT_FALSE(m.mmu->read(va + 0xffe, 4, &value, m.mmu->view()));
    EXPECT_EQ(m.context->fault.address, va + 0x1000);
    EXPECT_EQ(m.context->fault.error, 0u);
}

TEST_F(Tlb, a_fetch_reports_the_exact_address) {
    map(0x63);
    m.put(leaf_at, std::uint64_t(0));
    start();
    EXPECT_FALSE(m.mmu->fetch_page(va + 0x123));
    EXPECT_EQ(m.context->fault.address, va + 0x123);
}

TEST_F(Tlb, a_debuggers_look_asks_no_device_for_a_table_and_follows_no_reserved_bits) {
    map(0x63);
    start();
    std::uint8_t byte;
    EXPECT_TRUE(m.mmu->debug_access(va, std::span(&byte, 1), false));
    std::uint64_t const leaf = m.entry(leaf_at, 8);
    m.put(leaf_at, leaf | std::uint64_t(1) << 51);
    EXPECT_FALSE(m.mmu->debug_access(va, std::span(&byte, 1), false));
    m.put(leaf_at, leaf);
    m.put(Machine::directory + (va >> 21 & 511) * 8, std::uint64_t(ram_bytes) | 0x63); // a table where no RAM is
    EXPECT_FALSE(m.mmu->debug_access(va, std::span(&byte, 1), false));
    EXPECT_TRUE(m.bus.mmio_reads.empty());
}

} // namespace
