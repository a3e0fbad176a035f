// Mmu: one vCPU's address translation: TLB banks by address space and privilege view, slow paths of memory accesses,
// instruction fetch, data watchpoints.
#pragma once
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/fetch_cache.h"
#include "vmm/tcg/guest/x86/paging.h"

#include <array>
#include <atomic>
#include <bit>
#include <bitset>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <vector>

namespace vmm::tcg::x86 {

// What happened to translations so far; for people.
struct MmuStatistics {
    std::uint64_t refills = 0;         // entries made
    std::uint64_t full_flushes = 0;    // tables of one view of an address space emptied
    std::uint64_t partial_flushes = 0; // ... of one address space rid of all but global entries
    std::uint64_t page_flushes = 0;    // single pages forgotten
};

// Bytes of RAM that the guest's instructions wrote (for LockstepVcpu).
struct WrittenBytes {
    std::uint8_t const* host;
    unsigned size;
};

// All on the vCPU's thread, except request_flush.
class Mmu {
public:
    // `bus_lock` is the machine's: it makes read-modify-writes that have no host pointer atomic among vCPUs. Registers
    // itself with the context (mmu, engine.memory, engine.bank) and as a listener of the bus's memory.
    Mmu(X86Context& context, CpuBus& bus, vmm::x86::CpuModel const& model, std::mutex& bus_lock);
    ~Mmu();
    Mmu(Mmu const&) = delete;
    Mmu& operator=(Mmu const&) = delete;

    // --- accesses. False: a fault has been recorded and nothing was written. Sizes up to 64; may cross a page.
    bool read(std::uint64_t va, unsigned size, void* to, View view);
    bool write(std::uint64_t va, unsigned size, void const* from, View view);
    // Whether all of [va, va+size) could be written; faults like a write, writes nothing.
    bool probe_write(std::uint64_t va, unsigned size, View view);
    // Implicit supervisor accesses to descriptor tables and TSSs. Addresses are 64 bits in long mode whatever the code
    // segment says.
    template <class T> bool load_system(std::uint64_t va, T& to) { return read(va, sizeof(T), &to, View::kernel_smap); }
    template <class T> bool store_system(std::uint64_t va, T from) {
        return write(va, sizeof(T), &from, View::kernel_smap);
    }
    // The view of the current privilege.
    View view() const { return view_; }
    static MemoryOps const& operations();
    // For debuggers: reads or writes without rights, faults or A/D bits; false when not mapped to RAM.
    bool debug_access(std::uint64_t va, std::span<std::uint8_t> bytes, bool write);

    // --- code
    // The page that holds `address`, which a fault reports exactly.
    FetchResult fetch_page(std::uint64_t address);
    // The same for a page's address, when that is at hand; null otherwise.
    FetchResult const* known_code_page(std::uint64_t page) { return code(view_).find(page); }

    // --- what changes translations
    // Sets engine.bank, engine.fetch_epoch and the view for the current CPL, AC, CR4.SMAP. update_mode() calls it.
    void select_view();
    // MOV to CR3 with a value already checked; `keep` is bit 63 with CR4.PCIDE set. Sets state.cr3. False: #GP(0)
    // recorded (PDPTEs).
    bool set_cr3(std::uint64_t value, bool keep);
    // After CR0, CR4, EFER, PKRU, DR7 or the whole state changed: forgets every translation.
    void reconfigure();
    void flush_all();
    void flush_non_global();
    void invalidate_page(std::uint64_t va);                          // INVLPG
    void invalidate_pcid_page(std::uint64_t pcid, std::uint64_t va); // INVPCID 0
    void invalidate_pcid(std::uint64_t pcid);                        // INVPCID 1; globals stay
    // For the PDPTE checks of CR0/CR4 writes, see PageWalker.
    PageWalker& walker() { return walker_; }
    // A page of host memory got a note (code translated from it): no write may pass it by any longer.
    void drop_write_entries(std::uint8_t const* host_page);
    // Any thread: translations have become invalid for reasons outside this CPU; forgotten at service_requests(), which
    // the engine loop calls whenever exit_request is set.
    void request_flush();
    void service_requests() {
        if (flush_requested_.load(std::memory_order_acquire)) [[unlikely]]
            answer_flush_request();
    }

    MmuStatistics const& statistics() const { return statistics_; }
    // Torture: keeps only the few entries made last.
    void keep_few_entries() { tiny_ = true; }

    // From now on every access takes the slow path and every write to RAM but those of A/D bits is added to `list`.
    // Only for back ends that find the translation tables in engine.bank on each access.
    void note_writes(std::vector<WrittenBytes>* list);

    // --- data breakpoints: DR6 bits hit since the last call.
    std::uint64_t take_watch_hits() {
        std::uint64_t hits = watch_hits_;
        watch_hits_ = 0;
        return hits;
    }

private:
    static constexpr unsigned spaces = 8;
    // What a TLB entry's tag does not say: bits 0..6 log2 of the page size, bit 7 global.
    using EntryInfo = std::uint8_t;
    struct Tables {
        TlbBank bank;
        std::array<EntryInfo, TlbBank::entries> read_info{}, write_info{};
        // A bit for each slot in which something may be: what forgets translations looks at no others.
        std::array<std::uint64_t, TlbBank::entries / 64> filled{};
        bool used = false, has_global = false;

        void mark(unsigned slot) { filled[slot / 64] |= std::uint64_t(1) << slot % 64; }
        void unmark(unsigned slot) { filled[slot / 64] &= ~(std::uint64_t(1) << slot % 64); }
        // f may mark and unmark.
        template <class F> void for_filled(F f) {
            for (unsigned word = 0; word < filled.size(); ++word)
                for (std::uint64_t bits = filled[word]; bits; bits &= bits - 1)
                    f(word * 64 + unsigned(std::countr_zero(bits)));
        }
        void empty(unsigned slot) { bank.read[slot] = bank.write[slot] = {}; }
    };
    // Which parts of the address space have been seen in large pages: INVLPG there must look at every entry.
    class LargePages {
    public:
        void note(std::uint64_t va, unsigned page_bits) {
            if (page_bits == 12) return;
            if (page_bits == 30) return void(gigabytes_.set(va >> 30 & 63));
            regions_.set(va >> 21 & 4095);
            if (page_bits == 22) regions_.set((va >> 21 ^ 1) & 4095);
        }
        bool near(std::uint64_t va) const { return regions_.test(va >> 21 & 4095) || gigabytes_.test(va >> 30 & 63); }
        void clear() { regions_.reset(), gigabytes_.reset(); }

    private:
        std::bitset<4096> regions_; // of 2 MiB
        std::bitset<64> gigabytes_;
    };
    struct Space {
        std::array<Tables, view_count> views;
        TableCaches guest_tables;
        FetchCache user_code, kernel_code;
        LargePages large;
        std::uint64_t pcid = 0, last_used = 0;
        bool valid = false;
    };

    Tables& tables(View view) {
        Tables& t = current_->views[unsigned(view)];
        t.used = true;
        return t;
    }
    // Supervisor code is the same in every address space as long as only global pages hold some; once they do not,
    // each space has its own.
    FetchCache& kernel_code() { return own_kernel_code_ ? current_->kernel_code : shared_kernel_code_; }
    FetchCache& code(View view) { return view == View::user ? current_->user_code : kernel_code(); }
    void enter_space(Space& s);
    std::uint64_t wrap(std::uint64_t va, View view) const;
    bool canonical(std::uint64_t va) const;
    Space& space_for(std::uint64_t pcid);
    void clear_tables(Tables& t);
    void clear_space(Space& s);
    void clear_non_global(Space& s);
    void invalidate(Space& s, std::uint64_t va, bool globals);
    void answer_flush_request();

    std::optional<Translation> translate(std::uint64_t va, Access access, View view);
    // -d mmu
    bool traced() const;
    void trace_walk(std::uint64_t va, Access access, View view, std::optional<Translation> const& t,
                    std::uint32_t error) const;
    void trace_flush(std::string_view what) const;
    void fill(std::uint64_t va, View view, Translation const& t, Access access);
    // RAM that serves reads and writes alike.
    struct RamPiece {
        FlatView const* view = nullptr; // in which it lies there
        GuestPhys first = 0, last = 0;
        RamBlock* ram = nullptr;
        std::uint64_t offset = 0; // of `first`
    };
    // The one that holds the page at `phys`; null when there is none.
    RamPiece const* ram_piece(FlatView const& memory, GuestPhys phys);
    void forget_older_entries(Tables& t, unsigned slot);
    // One page's part of an access.
    struct Part {
        GuestPhys phys;
        unsigned size;
    };
    bool translate_parts(std::uint64_t va, unsigned size, Access access, View view, Part (&parts)[2]);
    bool slow_read(std::uint64_t va, unsigned size, void* to, View view);
    bool slow_write(std::uint64_t va, unsigned size, void const* from, View view);
    void physical_read(GuestPhys a, unsigned size, std::uint8_t* to);
    void physical_write(GuestPhys a, unsigned size, std::uint8_t const* from);
    bool misaligned(std::uint64_t va, unsigned size, View view);
    void* rmw_pointer(std::uint64_t va, unsigned size);
    void configure_watchpoints();
    bool watched_page(std::uint64_t va) const;
    void check_watchpoints(std::uint64_t va, unsigned size, bool write);

    X86Context& c_;
    CpuBus& bus_;
    PageWalker walker_;
    std::mutex& bus_lock_;
    unsigned listener_;
    std::array<std::unique_ptr<Space>, spaces> spaces_;
    Space* current_ = nullptr;
    FetchCache shared_kernel_code_;
    bool own_kernel_code_ = false;
    View view_ = View::kernel;
    std::uint64_t use_counter_ = 0;
    std::atomic<bool> flush_requested_{false};
    TlbBank empty_bank_; // never filled: alignment checking and noting writes send every access to the slow path
    std::vector<WrittenBytes>* written_ = nullptr;
    std::array<std::array<std::uint8_t, page_size>, 2> bounce_;
    unsigned next_bounce_ = 0;
    std::uint64_t watch_hits_ = 0;
    bool watching_ = false;
    MmuStatistics statistics_;
    RamPiece last_piece_; // found last
    bool tiny_ = false;
    struct Filled {
        Tables* tables = nullptr;
        unsigned slot = 0;
    };
    std::array<Filled, 16> filled_; // what is there when tiny_
    unsigned next_filled_ = 0;
};

} // namespace vmm::tcg::x86
