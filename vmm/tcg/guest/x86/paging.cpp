#include "vmm/tcg/guest/x86/paging.h"

#include "vmm/cpu/x86/cpu_model.h"

namespace vmm::tcg::x86 {

namespace {
namespace pte {
constexpr std::uint64_t present = 1, writable = 2, user = 4, accessed = 0x20, dirty = 0x40, large = 0x80,
                        global = 0x100, no_execute = std::uint64_t(1) << 63;
}
constexpr std::uint64_t bits(unsigned from, unsigned to) { // [from, to)
    if (from >= to) return 0;
    std::uint64_t below_to = to >= 64 ? ~std::uint64_t(0) : (std::uint64_t(1) << to) - 1;
    return below_to & ~((std::uint64_t(1) << from) - 1);
}
} // namespace

PageWalker::PageWalker(CpuBus& bus, State const& state, vmm::x86::CpuModel const& model)
    : bus_(bus), state_(state), physical_bits_(model.physical_bits),
      gigabyte_pages_(model.has(vmm::x86::Feature::pdpe1gb)) {
    configure();
}

void PageWalker::configure() {
    wp_ = state_.cr0 & cr0::wp;
    smep_ = state_.cr4 & cr4::smep;
    smap_ = state_.cr4 & cr4::smap;
    pse_ = state_.cr4 & cr4::pse;
    pge_ = state_.cr4 & cr4::pge;
    pke_ = (state_.cr4 & cr4::pke) && (state_.efer & efer::lma);
    bool pae = state_.cr4 & cr4::pae;
    nxe_ = pae && (state_.efer & efer::nxe);
    fetch_bit_ = nxe_ || smep_;
    pdptes_valid_ = false;
    if (!(state_.cr0 & cr0::pg))
        kind_ = Kind::none;
    else if (!pae)
        kind_ = Kind::bits32;
    else if (!(state_.efer & efer::lma))
        kind_ = Kind::pae;
    else
        kind_ = state_.cr4 & cr4::la57 ? Kind::long5 : Kind::long4;
    index_bits_ = kind_ == Kind::bits32 ? 10 : 9;
    entry_size_ = kind_ == Kind::bits32 ? 4 : 8;
    top_level_ = kind_ == Kind::long5 ? 5 : kind_ == Kind::long4 ? 4 : 2;
    quick_reserved_[0] = reserved_bits(0, 1, false);
    quick_reserved_[1] = reserved_bits(pte::large, 2, true);
}

bool PageWalker::load_pdptes(std::uint64_t cr3) {
    std::array<std::uint64_t, 4> loaded;
    std::uint64_t reserved = bits(physical_bits_, 64) | 0x1e6;
    for (unsigned i = 0; i < 4; ++i) {
        Ref at = locate(cr3 & 0xffffffe0, 0);
        if (at.host) at.host += 8 * i;
        at.phys += 8 * i;
        loaded[i] = read_entry(at);
        if ((loaded[i] & pte::present) && (loaded[i] & reserved)) return false;
    }
    pdptes_ = loaded;
    pdptes_valid_ = true;
    return true;
}

PageWalker::Ref PageWalker::locate(GuestPhys table, unsigned index) const {
    Ref at{.phys = table + std::uint64_t(index) * entry_size_};
    FlatRange const* piece = bus_.memory().view().find_read(at.phys);
    if (!piece || !piece->backing.ram || piece->range.last - at.phys < entry_size_ - 1) return at;
    at.ram = piece->backing.ram;
    at.ram_offset = piece->backing.offset + (at.phys - piece->range.first);
    at.host = at.ram->host() + at.ram_offset;
    return at;
}

std::uint64_t PageWalker::read_entry(Ref const& at) const {
    if (!at.host) return bus_.mmio_read(at.phys, entry_size_);
    if (entry_size_ == 4) return __atomic_load_n(reinterpret_cast<std::uint32_t*>(at.host), __ATOMIC_ACQUIRE);
    return __atomic_load_n(reinterpret_cast<std::uint64_t*>(at.host), __ATOMIC_ACQUIRE);
}

// False when another CPU changed the entry meanwhile. An entry in ROM keeps its value, as on hardware.
bool PageWalker::update_entry(Ref const& at, std::uint64_t old, std::uint64_t now) {
    if (!at.host) {
        bus_.mmio_write(at.phys, entry_size_, now);
        return true;
    }
    FlatRange const* piece = bus_.memory().view().find_write(at.phys);
    if (!piece || piece->backing.ram != at.ram) return true;
    bool swapped;
    if (entry_size_ == 4) {
        auto expected = std::uint32_t(old);
        swapped = __atomic_compare_exchange_n(reinterpret_cast<std::uint32_t*>(at.host), &expected, std::uint32_t(now),
                                              false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    } else {
        swapped = __atomic_compare_exchange_n(reinterpret_cast<std::uint64_t*>(at.host), &old, now, false,
                                              __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE);
    }
    if (swapped) at.ram->written(at.ram_offset, entry_size_);
    return swapped;
}

bool PageWalker::large(std::uint64_t entry, unsigned level) const {
    if (!(entry & pte::large)) return false;
    if (kind_ == Kind::bits32) return level == 2 && pse_;
    return level == 2 || (level == 3 && gigabyte_pages_);
}

std::uint64_t PageWalker::reserved_bits(std::uint64_t entry, unsigned level, bool is_large) const {
    if (kind_ == Kind::bits32) {
        // PSE-36: bits 13..20 are address bits 32..39, as far as the CPU has them; bit 21 is always reserved.
        unsigned high = physical_bits_ > 40 ? 8 : physical_bits_ > 32 ? physical_bits_ - 32 : 0;
        return is_large ? bits(13 + high, 22) : 0;
    }
    std::uint64_t reserved = bits(physical_bits_, kind_ == Kind::pae ? 63 : 52);
    if (!nxe_) reserved |= pte::no_execute;
    if (is_large)
        reserved |= bits(13, shift(level));
    else if (level > 1 && (entry & pte::large))
        reserved |= pte::large; // no such page size at this level
    return reserved;
}

GuestPhys PageWalker::frame(std::uint64_t entry, unsigned level, std::uint64_t va) const {
    std::uint64_t offset_mask = (std::uint64_t(1) << shift(level)) - 1;
    if (kind_ == Kind::bits32) {
        GuestPhys base = entry & 0xffffffff & ~offset_mask;
        if (level == 2) base |= (entry >> 13 & 0xff) << 32;
        return base | (va & offset_mask);
    }
    return (entry & bits(12, 52) & ~offset_mask) | (va & offset_mask);
}

std::uint32_t PageWalker::error_code(Request const& r, std::uint32_t error) const {
    if (r.access == Access::write) error |= pf_error::write;
    if (r.view == View::user) error |= pf_error::user;
    if (r.access == Access::execute && fetch_bit_) error |= pf_error::fetch;
    return error;
}

bool PageWalker::permitted(Request const& r, Rights rights, std::uint64_t entry, Access access,
                           std::uint32_t& error) const {
    error = pf_error::present;
    bool user = r.view == View::user;
    if (user && !rights.user) return false;
    if (access == Access::execute) return !rights.no_execute && !(smep_ && !user && rights.user);
    if (!user && rights.user && smap_ && r.view == View::kernel_smap) return false;
    if (access == Access::write && !rights.writable && (user || wp_)) return false;
    if (pke_ && rights.user) {
        unsigned key = unsigned(entry >> 59) & 15, denied = state_.pkru >> (2 * key) & 3;
        if ((denied & 1) || ((denied & 2) && access == Access::write && (user || wp_))) {
            error |= pf_error::protection_key;
            return false;
        }
    }
    return true;
}

PageWalker::Outcome PageWalker::finish(Request const& r, Ref const& at, std::uint64_t entry, unsigned level,
                                       Rights rights, Translation& out, std::uint32_t& error) {
    if (!permitted(r, rights, entry, r.access, error)) return Outcome::fault;
    std::uint64_t now = entry | pte::accessed | (r.access == Access::write ? pte::dirty : 0);
    if (now != entry && !update_entry(at, entry, now)) return Outcome::changed;
    std::uint32_t ignored;
    out.phys = frame(entry, level, r.va);
    out.page_bits = shift(level);
    out.write_ready = (now & pte::dirty) && permitted(r, rights, entry, Access::write, ignored);
    out.global = pge_ && (entry & pte::global);
    return Outcome::done;
}

bool PageWalker::quick(Request const& r, TableCaches const& caches, Translation& out) const {
    if (entry_size_ != 8) return false;
    bool is_large = false;
    TableCache::Entry const* table = caches.level1.find(r.va >> 21);
    if (!table) {
        table = caches.level2.find(r.va >> 30);
        if (!table) return false;
        is_large = true;
    }
    Ref const at{.host = table->host + (r.va >> (is_large ? 21 : 12) & 511) * 8};
    std::uint64_t const entry = read_entry(at);
    std::uint64_t const needed =
        pte::present | pte::accessed | (r.access == Access::write ? pte::dirty : 0) | (is_large ? pte::large : 0);
    if ((entry & needed) != needed || (entry & quick_reserved_[is_large])) return false;
    Rights const rights{.writable = table->writable && (entry & pte::writable),
                        .user = table->user && (entry & pte::user),
                        .no_execute = table->no_execute || (nxe_ && (entry & pte::no_execute))};
    std::uint32_t ignored;
    if (!permitted(r, rights, entry, r.access, ignored)) return false;
    std::uint64_t const offset_mask = is_large ? 0x1fffff : 0xfff;
    out.phys = (entry & bits(12, 52) & ~offset_mask) | (r.va & offset_mask);
    out.page_bits = is_large ? 21 : 12;
    out.write_ready = (entry & pte::dirty) && permitted(r, rights, entry, Access::write, ignored);
    out.global = pge_ && (entry & pte::global);
    return true;
}

PageWalker::Outcome PageWalker::attempt(Request const& r, TableCaches& caches, Translation& out, std::uint32_t& error) {
    Rights rights;
    unsigned level = top_level_;
    Ref at;
    std::uint64_t index_mask = (std::uint64_t(1) << index_bits_) - 1;
    GuestPhys table = state_.cr3 & (kind_ == Kind::bits32 ? 0xfffff000 : bits(12, physical_bits_));
    if (kind_ == Kind::pae) {
        if (!pdptes_valid_ && !load_pdptes(state_.cr3)) pdptes_ = {}, pdptes_valid_ = true;
        std::uint64_t pdpte = pdptes_[r.va >> 30 & 3];
        error = 0;
        if (!(pdpte & pte::present)) return Outcome::fault;
        table = pdpte & bits(12, physical_bits_);
    }
    auto known = [&](TableCache const& cache, unsigned of_level) {
        TableCache::Entry const* hit = cache.find(r.va >> shift(of_level + 1));
        if (!hit) return false;
        rights = {hit->writable, hit->user, hit->no_execute};
        std::uint64_t offset = (r.va >> shift(of_level) & index_mask) * entry_size_;
        at = {hit->host + offset, hit->ram, hit->ram_offset + offset, 0};
        level = of_level;
        return true;
    };
    if (!known(caches.level1, 1) && (top_level_ == 2 || !known(caches.level2, 2)))
        at = locate(table, unsigned(r.va >> shift(level) & index_mask));
    for (;; --level) {
        std::uint64_t entry = read_entry(at);
        error = 0;
        if (!(entry & pte::present)) return Outcome::fault;
        bool is_large = large(entry, level);
        error = pf_error::present | pf_error::reserved;
        if (entry & reserved_bits(entry, level, is_large)) return Outcome::fault;
        rights.writable &= (entry & pte::writable) != 0;
        rights.user &= (entry & pte::user) != 0;
        rights.no_execute |= nxe_ && (entry & pte::no_execute);
        if (level == 1 || is_large) return finish(r, at, entry, level, rights, out, error);
        if (!(entry & pte::accessed) && !update_entry(at, entry, entry | pte::accessed)) return Outcome::changed;
        GuestPhys next = kind_ == Kind::bits32 ? entry & 0xfffff000 : entry & bits(12, 52);
        unsigned index = unsigned(r.va >> shift(level - 1) & index_mask);
        at = locate(next, index);
        if ((level == 2 || level == 3) && at.host)
            (level == 2 ? caches.level1 : caches.level2)
                .put({.tag = r.va >> shift(level),
                      .host = at.host - index * entry_size_,
                      .ram = at.ram,
                      .ram_offset = at.ram_offset - index * entry_size_,
                      .writable = rights.writable,
                      .user = rights.user,
                      .no_execute = rights.no_execute});
    }
}

std::optional<Translation> PageWalker::walk(std::uint64_t va, Access access, View view, TableCaches& caches,
                                            std::uint32_t& error) {
    if (kind_ == Kind::none) return Translation{.phys = va, .page_bits = 12, .write_ready = true, .global = false};
    Request r{va, access, view};
    Translation out;
    if (quick(r, caches, out)) [[likely]]
        return out;
    for (;;) {
        switch (attempt(r, caches, out, error)) {
        case Outcome::done: return out;
        case Outcome::fault: error = error_code(r, error); return std::nullopt;
        case Outcome::changed: break;
        }
    }
}

std::optional<GuestPhys> PageWalker::peek(std::uint64_t va) {
    if (kind_ == Kind::none) return va;
    std::uint64_t index_mask = (std::uint64_t(1) << index_bits_) - 1;
    GuestPhys table = state_.cr3 & (kind_ == Kind::bits32 ? 0xfffff000 : bits(12, physical_bits_));
    if (kind_ == Kind::pae) {
        if (!pdptes_valid_ && !load_pdptes(state_.cr3)) return std::nullopt;
        if (!(pdptes_[va >> 30 & 3] & pte::present)) return std::nullopt;
        table = pdptes_[va >> 30 & 3] & bits(12, physical_bits_);
    }
    for (unsigned level = top_level_;; --level) {
        Ref const at = locate(table, unsigned(va >> shift(level) & index_mask));
        if (!at.host) return std::nullopt; // a device, which a look must not disturb
        std::uint64_t const entry = read_entry(at);
        bool const is_large = large(entry, level);
        if (!(entry & pte::present) || (entry & reserved_bits(entry, level, is_large))) return std::nullopt;
        if (level == 1 || is_large) return frame(entry, level, va);
        table = kind_ == Kind::bits32 ? entry & 0xfffff000 : entry & bits(12, 52);
    }
}

} // namespace vmm::tcg::x86
