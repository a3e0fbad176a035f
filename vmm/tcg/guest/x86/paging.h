// PageWalker: the guest's page tables (SDM vol. 3 chapter 4), all paging modes, without any caching of pages.
#pragma once
#include "vmm/cpu/cpu_bus.h"
#include "vmm/cpu/x86/state.h"

#include <array>
#include <cstdint>
#include <optional>

namespace vmm {
namespace x86 {
struct CpuModel;
}
namespace tcg::x86 {

using namespace vmm::x86;

enum class Access : std::uint8_t { read, write, execute };

// In whose name an access is made. `kernel_smap`: supervisor with CR4.SMAP in force, also every implicit access to
// descriptor tables and TSSs; `kernel`: supervisor with EFLAGS.AC set or no SMAP.
enum class View : std::uint8_t { kernel_smap, kernel, user };
inline constexpr unsigned view_count = 3;

// A page that the guest's tables allow the access to. A and D bits have been set as the access demands.
struct Translation {
    GuestPhys phys = 0;       // of the address asked for
    unsigned page_bits = 12;  // log2 of the page's size
    bool write_ready = false; // a write would be allowed too and the dirty bit is set already
    bool global = false;
};

// Remembers where tables of one level lie, with the rights of the levels above.
class TableCache {
public:
    struct Entry {
        std::uint64_t tag = ~std::uint64_t(0); // va >> size of a table's reach
        std::uint64_t generation = 0;          // good in this one only
        std::uint8_t* host = nullptr;
        RamBlock* ram = nullptr;
        std::uint64_t ram_offset = 0;
        bool writable = false, user = false, no_execute = false;
    };
    void clear() { ++generation_; }
    Entry const* find(std::uint64_t tag) const {
        Entry const& e = entries_[tag % entries_.size()];
        return e.tag == tag && e.generation == generation_ ? &e : nullptr;
    }
    void put(Entry const& e) {
        Entry& place = entries_[e.tag % entries_.size()];
        place = e;
        place.generation = generation_;
    }

private:
    std::array<Entry, 64> entries_{};
    std::uint64_t generation_ = 1;
};

// The SDM's "PDE cache" (where level-1 tables lie) and "PDPTE cache" (level-2 tables, long mode only). One per address
// space; to be cleared whenever the architecture lets paging-structure caches go.
struct TableCaches {
    TableCache level1, level2;
    void clear() { level1.clear(), level2.clear(); }
};

// Used on the vCPU's thread only.
class PageWalker {
public:
    // `state` is watched through the reference; `model` gives MAXPHYADDR and which page sizes exist.
    PageWalker(CpuBus& bus, State const& state, vmm::x86::CpuModel const& model);

    // To be called after CR0, CR4, EFER, PKRU or the whole state changed. Forgets the PDPTEs: they are read again at
    // the next walk.
    void configure();
    // Reads the four PDPTEs for `cr3` as MOV CR3 does in PAE mode; false (nothing changed) when one has reserved bits
    // set: #GP(0).
    bool load_pdptes(std::uint64_t cr3);
    bool pae_mode() const { return kind_ == Kind::pae; }
    bool paging() const { return kind_ != Kind::none; }

    // Translates `va` (canonical, or 32 bits outside long mode). Nothing: a page fault with error code `error`.
    std::optional<Translation> walk(std::uint64_t va, Access access, View view, TableCaches& caches,
                                    std::uint32_t& error);
    // The translation a debugger sees: no rights checked, nothing written, no device asked for a table.
    std::optional<GuestPhys> peek(std::uint64_t va);

private:
    enum class Kind : std::uint8_t { none, bits32, pae, long4, long5 };
    // A paging-structure entry's place.
    struct Ref {
        std::uint8_t* host = nullptr;
        RamBlock* ram = nullptr;
        std::uint64_t ram_offset = 0;
        GuestPhys phys = 0;
    };
    // What the levels passed so far allow.
    struct Rights {
        bool writable = true, user = true, no_execute = false;
    };
    struct Request {
        std::uint64_t va;
        Access access;
        View view;
    };
    enum class Outcome : std::uint8_t { done, fault, changed };

    // The usual walk: known tables, nothing to set in them, access allowed, entries of 8 bytes. False: anything else.
    bool quick(Request const& r, TableCaches const& caches, Translation& out) const;
    Outcome attempt(Request const& r, TableCaches& caches, Translation& out, std::uint32_t& error);
    Outcome finish(Request const& r, Ref const& at, std::uint64_t entry, unsigned level, Rights rights,
                   Translation& out, std::uint32_t& error);
    bool permitted(Request const& r, Rights rights, std::uint64_t entry, Access access, std::uint32_t& error) const;
    std::uint32_t error_code(Request const& r, std::uint32_t bits) const;
    Ref locate(GuestPhys table, unsigned index) const;
    std::uint64_t read_entry(Ref const& at) const;
    bool update_entry(Ref const& at, std::uint64_t old, std::uint64_t now);
    bool large(std::uint64_t entry, unsigned level) const;
    std::uint64_t reserved_bits(std::uint64_t entry, unsigned level, bool is_large) const;
    GuestPhys frame(std::uint64_t entry, unsigned level, std::uint64_t va) const;
    unsigned shift(unsigned level) const { return 12 + index_bits_ * (level - 1); }

    CpuBus& bus_;
    State const& state_;
    Kind kind_ = Kind::none;
    unsigned physical_bits_, top_level_ = 0, index_bits_ = 9, entry_size_ = 8;
    bool gigabyte_pages_, wp_ = false, smep_ = false, smap_ = false, nxe_ = false, pse_ = false, pge_ = false,
                          pke_ = false, fetch_bit_ = false;
    std::uint64_t quick_reserved_[2] = {}; // reserved bits of level-1 entries and of level-2 ones for large pages
    bool pdptes_valid_ = false;
    std::array<std::uint64_t, 4> pdptes_{};
};

} // namespace tcg::x86
} // namespace vmm
