// Translations and their upkeep; the accesses themselves are in mmu_access.cpp.
#include "vmm/tcg/guest/x86/mmu.h"

#include "vmm/tcg/guest/x86/system.h"

#include <fmt/core.h>

#include <algorithm>
#include <string>

namespace vmm::tcg::x86 {

namespace {
constexpr std::uint8_t global_info = 0x80, page_bits_mask = 0x7f;
constexpr std::uint64_t page_mask = ~std::uint64_t(page_size - 1);
} // namespace

Mmu::Mmu(X86Context& context, CpuBus& bus, vmm::x86::CpuModel const& model, std::mutex& bus_lock)
    : c_(context), bus_(bus), walker_(bus, context.state, model), bus_lock_(bus_lock) {
    c_.bus = &bus;
    c_.mmu = this;
    c_.engine.memory = &operations();
    listener_ = bus_.memory().add_listener([this] { request_flush(); });
    reconfigure();
}

Mmu::~Mmu() { bus_.memory().remove_listener(listener_); }

void Mmu::request_flush() {
    flush_requested_.store(true, std::memory_order_release);
    c_.engine.exit_request.store(1, std::memory_order_release);
}

void Mmu::answer_flush_request() {
    flush_requested_.store(false, std::memory_order_relaxed);
    flush_all();
}

// --- address spaces

Mmu::Space& Mmu::space_for(std::uint64_t pcid) {
    std::unique_ptr<Space>* oldest = &spaces_[0];
    for (auto& s : spaces_) {
        if (s && s->valid && s->pcid == pcid) {
            s->last_used = ++use_counter_;
            return *s;
        }
        std::uint64_t age = s && s->valid ? s->last_used : 0,
                      oldest_age = *oldest && (*oldest)->valid ? (*oldest)->last_used : 0;
        if (age < oldest_age) oldest = &s;
    }
    if (!*oldest) *oldest = std::make_unique<Space>();
    Space& s = **oldest;
    clear_space(s);
    s.valid = true;
    s.pcid = pcid;
    s.last_used = ++use_counter_;
    return s;
}

void Mmu::clear_tables(Tables& t) {
    if (!t.used) return;
    t.for_filled([&](unsigned slot) { t.empty(slot); });
    t.filled.fill(0);
    t.used = t.has_global = false;
    ++statistics_.full_flushes;
}

void Mmu::clear_space(Space& s) {
    for (Tables& t : s.views) clear_tables(t);
    s.guest_tables.clear();
    s.user_code.clear();
    s.kernel_code.clear();
    s.large.clear();
}

void Mmu::clear_non_global(Space& s) {
    ++statistics_.partial_flushes;
    s.guest_tables.clear();
    s.user_code.clear_non_global();
    (own_kernel_code_ ? s.kernel_code : shared_kernel_code_).clear_non_global();
    for (Tables& t : s.views) {
        if (!t.used) continue;
        if (!t.has_global) {
            clear_tables(t);
            continue;
        }
        t.for_filled([&](unsigned i) {
            if (!(t.read_info[i] & global_info)) t.bank.read[i] = {};
            if (!(t.write_info[i] & global_info)) t.bank.write[i] = {};
            if (t.bank.read[i].tag == invalid_tag && t.bank.write[i].tag == invalid_tag) t.unmark(i);
        });
    }
}

// `globals`: global entries go too.
void Mmu::invalidate(Space& s, std::uint64_t va, bool globals) {
    ++statistics_.page_flushes;
    auto drop = [&](std::uint64_t& tag, EntryInfo info) {
        if (tag == invalid_tag || (!globals && (info & global_info))) return;
        if ((tag ^ va) >> (info & page_bits_mask) == 0) tag = invalid_tag;
    };
    bool near_large = s.large.near(va);
    for (Tables& t : s.views) {
        if (!t.used) continue;
        auto drop_slot = [&](unsigned i) {
            drop(t.bank.read[i].tag, t.read_info[i]);
            drop(t.bank.write[i].tag, t.write_info[i]);
        };
        if (near_large)
            t.for_filled(drop_slot);
        else
            drop_slot(TlbBank::slot(va));
    }
    s.user_code.invalidate(va, globals);
    (own_kernel_code_ ? s.kernel_code : shared_kernel_code_).invalidate(va, globals);
}

void Mmu::select_view() {
    State const& s = c_.state;
    if (current_cpl(s) == 3)
        view_ = View::user;
    else
        view_ = (s.cr4 & cr4::smap) && !(s.rflags & flag::ac) ? View::kernel_smap : View::kernel;
    bool check_alignment = view_ == View::user && (s.cr0 & cr0::am) && (s.rflags & flag::ac);
    c_.engine.bank = check_alignment || written_ ? &empty_bank_ : &current_->views[unsigned(view_)].bank;
    c_.engine.fetch_epoch = code(view_).epoch();
}

void Mmu::note_writes(std::vector<WrittenBytes>* list) {
    written_ = list;
    select_view();
}

void Mmu::enter_space(Space& s) {
    if (current_ == &s) return;
    current_ = &s;
    if (own_kernel_code_) return;
    own_kernel_code_ = shared_kernel_code_.local();
    shared_kernel_code_.clear_non_global();
}

bool Mmu::set_cr3(std::uint64_t value, bool keep) {
    bool pcids = c_.state.cr4 & cr4::pcide;
    if (walker_.pae_mode() && !walker_.load_pdptes(value)) {
        raise_gp(c_);
        return false;
    }
    c_.state.cr3 = value;
    enter_space(space_for(pcids ? value & 0xfff : 0));
    if (!keep) {
        clear_non_global(*current_);
        trace_flush("all but global pages of this address space");
    }
    select_view();
    return true;
}

void Mmu::reconfigure() {
    walker_.configure();
    configure_watchpoints();
    current_ = &space_for(c_.state.cr4 & cr4::pcide ? c_.state.cr3 & 0xfff : 0);
    flush_all();
    own_kernel_code_ = false;
    select_view();
}

void Mmu::flush_all() {
    trace_flush("everything");
    last_piece_ = {};
    shared_kernel_code_.clear();
    for (auto& s : spaces_) {
        if (!s) continue;
        clear_space(*s);
        if (s.get() != current_) s->valid = false;
    }
}

void Mmu::flush_non_global() {
    trace_flush("all but global pages");
    for (auto& s : spaces_)
        if (s && s->valid) clear_non_global(*s);
}

void Mmu::invalidate_page(std::uint64_t va) {
    if (traced()) [[unlikely]]
        trace_flush(fmt::format("the page of {:#x}", va));
    for (auto& s : spaces_) {
        if (!s || !s->valid) continue;
        // Other address spaces lose the page too: more than demanded (their global translations), and simpler.
        invalidate(*s, va, true);
        s->guest_tables.clear();
    }
}

void Mmu::invalidate_pcid_page(std::uint64_t pcid, std::uint64_t va) {
    for (auto& s : spaces_) {
        if (!s || !s->valid || s->pcid != pcid) continue;
        invalidate(*s, va, false);
        s->guest_tables.clear();
    }
}

void Mmu::invalidate_pcid(std::uint64_t pcid) {
    for (auto& s : spaces_)
        if (s && s->valid && s->pcid == pcid) clear_non_global(*s);
}

void Mmu::drop_write_entries(std::uint8_t const* host_page) {
    auto host = reinterpret_cast<std::uint64_t>(host_page);
    for (auto& s : spaces_) {
        if (!s || !s->valid) continue;
        for (Tables& t : s->views) {
            if (!t.used) continue;
            t.for_filled([&](unsigned i) {
                TlbEntry& e = t.bank.write[i];
                if (e.tag != invalid_tag && e.tag + e.addend == host) e.tag = invalid_tag;
            });
        }
    }
}

// --- translating

bool Mmu::canonical(std::uint64_t va) const { return !c_.state.long_mode() || is_canonical(c_.state, va); }

std::uint64_t Mmu::wrap(std::uint64_t va, View) const { return c_.state.long_mode() ? va : va & 0xffffffff; }

std::optional<Translation> Mmu::translate(std::uint64_t va, Access access, View view) {
    if (!canonical(va)) {
        c_.raise_not_canonical(va);
        return std::nullopt;
    }
    std::uint32_t error = 0;
    std::optional<Translation> t = walker_.walk(va, access, view, current_->guest_tables, error);
    if (traced()) [[unlikely]]
        trace_walk(va, access, view, t, error);
    if (!t) {
        c_.raise_page_fault(va, error);
        return std::nullopt;
    }
    if (access != Access::execute) fill(va, view, *t, access);
    return t;
}

Mmu::RamPiece const* Mmu::ram_piece(FlatView const& memory, GuestPhys phys) {
    RamPiece& known = last_piece_;
    auto holds_page = [&](GuestPhys first, GuestPhys last) {
        return first <= phys && phys <= last && last - phys >= page_size - 1;
    };
    if (known.view == &memory && holds_page(known.first, known.last)) [[likely]]
        return &known;
    FlatRange const *read = memory.find_read(phys), *write = memory.find_write(phys);
    if (!read || !write || !read->backing.ram || read->backing.ram != write->backing.ram) return nullptr;
    if (read->backing.offset - read->range.first != write->backing.offset - write->range.first) return nullptr;
    GuestPhys const first = std::max(read->range.first, write->range.first),
                    last = std::min(read->range.last, write->range.last);
    if (!holds_page(first, last)) return nullptr;
    known = {&memory, first, last, read->backing.ram, read->backing.offset + (first - read->range.first)};
    return &known;
}

bool Mmu::traced() const { return c_.log && c_.log->enabled(Trace::mmu); }

void Mmu::trace_walk(std::uint64_t va, Access access, View view, std::optional<Translation> const& t,
                     std::uint32_t error) const {
    static constexpr char const *accesses[] = {"read", "write", "fetch"},
                                *views[] = {"kernel (smap)", "kernel", "user"};
    std::string const result = t ? fmt::format("{:#x}, page of {:#x} bytes{}", t->phys,
                                               std::uint64_t(1) << t->page_bits, t->global ? ", global" : "")
                                 : fmt::format("page fault, error {:#x}", error);
    c_.log->trace(Trace::mmu, fmt::format("MMU: {} {} of {:#x}, CR3 {:#x}: {}\n", views[unsigned(view)],
                                          accesses[unsigned(access)], va, c_.state.cr3, result));
}

void Mmu::trace_flush(std::string_view what) const {
    if (traced()) [[unlikely]]
        c_.log->trace(Trace::mmu, fmt::format("MMU: CR3 {:#x}: forgets {}\n", c_.state.cr3, what));
}

void Mmu::fill(std::uint64_t va, View view, Translation const& t, Access access) {
    std::uint64_t page = va & page_mask;
    GuestPhys phys = t.phys & page_mask;
    if (watching_ && watched_page(page)) return;
    Tables& tables_of_view = tables(view);
    TlbEntry &read = tables_of_view.bank.read[TlbBank::slot(page)],
             &write = tables_of_view.bank.write[TlbBank::slot(page)];
    // The other kind of access gets its entry along with this one only where no page has to make room for it: a copy
    // between two pages that share a slot would miss on each access.
    bool for_reads = access != Access::write || read.tag == invalid_tag;
    bool for_writes = access == Access::write || (t.write_ready && write.tag == invalid_tag);
    FlatView const& memory = bus_.memory().view();
    std::uint8_t* host = nullptr;
    if (RamPiece const* piece = ram_piece(memory, phys)) {
        std::uint64_t const offset = piece->offset + (phys - piece->first);
        host = piece->ram->host() + offset;
        for_writes = for_writes && !piece->ram->notes(offset).load(std::memory_order_acquire);
    } else { // what can be written is not what can be read
        FlatRange const* readable = memory.find_read(phys);
        if (readable && readable->backing.ram && readable->range.last - phys >= page_size - 1)
            host = readable->backing.ram->host() + readable->backing.offset + (phys - readable->range.first);
        for_writes = false;
    }
    if (!host || !(for_reads || for_writes)) return;
    unsigned const slot = TlbBank::slot(page);
    auto const info = EntryInfo(t.page_bits | (t.global ? global_info : 0));
    TlbEntry const entry{page, reinterpret_cast<std::uint64_t>(host) - page};
    if (for_reads) read = entry, tables_of_view.read_info[slot] = info;
    if (for_writes) write = entry, tables_of_view.write_info[slot] = info;
    tables_of_view.mark(slot);
    ++statistics_.refills;
    tables_of_view.has_global |= t.global;
    current_->large.note(page, t.page_bits);
    if (tiny_) [[unlikely]]
        forget_older_entries(tables_of_view, slot);
}

// Torture: `slot` was filled just now; makes the oldest of the few others go, and now and then code's translations too.
void Mmu::forget_older_entries(Tables& t, unsigned slot) {
    for (Filled const& f : filled_)
        if (f.tables == &t && f.slot == slot) return;
    Filled& oldest = filled_[next_filled_++ % filled_.size()];
    if (oldest.tables) oldest.tables->empty(oldest.slot);
    oldest = {&t, slot};
    if (next_filled_ % 64) return;
    current_->user_code.clear();
    kernel_code().clear();
}

FetchResult Mmu::fetch_page(std::uint64_t address) {
    std::uint64_t const va = wrap(address, view_) & page_mask;
    FetchCache& cache = code(view_);
    if (FetchResult const* known = cache.find(va)) return *known;
    std::optional<Translation> translation = translate(wrap(address, view_), Access::execute, view_);
    if (!translation) return {};
    FetchResult where{.phys = translation->phys & page_mask};
    FlatRange const* piece = bus_.memory().view().find_read(where.phys);
    if (piece && piece->backing.ram && piece->range.last - where.phys >= page_size - 1) {
        where.ram = piece->backing.ram;
        where.ram_offset = piece->backing.offset + (where.phys - piece->range.first);
        where.host = where.ram->host() + where.ram_offset;
        // A RAM piece that does not begin at a page border of its block cannot carry page notes: treat it as a device.
        if (where.ram_offset % page_size != 0) where.ram = nullptr;
    }
    if (where.ram) {
        cache.put(va, where, translation->page_bits, translation->global);
        return where;
    }
    std::array<std::uint8_t, page_size>& copy = bounce_[next_bounce_++ % bounce_.size()];
    for (unsigned i = 0; i < page_size; i += 8) physical_read(where.phys + i, 8, copy.data() + i);
    where.host = copy.data();
    where.ram_offset = 0;
    return where;
}

// --- watchpoints

void Mmu::configure_watchpoints() {
    watching_ = false;
    for (unsigned i = 0; i < 4; ++i) {
        unsigned kind = unsigned(c_.state.dr7 >> (16 + 4 * i)) & 3;
        if ((c_.state.dr7 >> (2 * i) & 3) && (kind & 1)) watching_ = true;
    }
}

namespace {
struct Watch {
    std::uint64_t first, last;
    bool reads;
};
// Breakpoint i of DR7, if it is an enabled data breakpoint.
std::optional<Watch> watch_of(State const& s, unsigned i) {
    unsigned control = unsigned(s.dr7 >> (16 + 4 * i)) & 15;
    if (!(s.dr7 >> (2 * i) & 3) || !(control & 1)) return std::nullopt;
    static constexpr unsigned lengths[] = {1, 2, 8, 4};
    unsigned length = lengths[control >> 2];
    std::uint64_t first = s.dr[i] & ~std::uint64_t(length - 1);
    return Watch{first, first + length - 1, (control & 3) == 3};
}
} // namespace

bool Mmu::watched_page(std::uint64_t page) const {
    for (unsigned i = 0; i < 4; ++i)
        if (auto w = watch_of(c_.state, i); w && (w->first & page_mask) == page) return true;
    return false;
}

void Mmu::check_watchpoints(std::uint64_t va, unsigned size, bool write) {
    for (unsigned i = 0; i < 4; ++i)
        if (auto w = watch_of(c_.state, i); w && (write || w->reads) && va <= w->last && va + size - 1 >= w->first)
            watch_hits_ |= std::uint64_t(1) << i;
}

} // namespace vmm::tcg::x86
