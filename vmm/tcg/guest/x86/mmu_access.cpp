// Guest memory accesses: the fast path's lookup for helpers, and what happens when there is no TLB entry.
#include "vmm/tcg/guest/x86/mmu.h"
#include "vmm/tcg/guest/x86/system.h"

#include <algorithm>
#include <cstring>

namespace vmm::tcg::x86 {

// Copies with one machine access for each natural size, so that other CPUs see no torn values. That guests race with
// themselves is their own affair, not ThreadSanitizer's.
[[gnu::no_sanitize("thread")]] static void copy_sized(void* to, void const* from, unsigned size) {
    switch (size) {
    case 1: std::memcpy(to, from, 1); break;
    case 2: std::memcpy(to, from, 2); break;
    case 4: std::memcpy(to, from, 4); break;
    case 8: std::memcpy(to, from, 8); break;
    case 16: std::memcpy(to, from, 16); break;
    default: std::memcpy(to, from, size); break;
    }
}

bool Mmu::read(std::uint64_t va, unsigned size, void* to, View view) {
    va = wrap(va, view);
    if (void* host = tlb_lookup(current_->views[unsigned(view)].bank.read, va, size)) {
        copy_sized(to, host, size);
        return true;
    }
    return slow_read(va, size, to, view);
}

bool Mmu::write(std::uint64_t va, unsigned size, void const* from, View view) {
    va = wrap(va, view);
    if (void* host = tlb_lookup(current_->views[unsigned(view)].bank.write, va, size)) {
        copy_sized(host, from, size);
        if (written_) written_->push_back({static_cast<std::uint8_t*>(host), size});
        return true;
    }
    return slow_write(va, size, from, view);
}

bool Mmu::probe_write(std::uint64_t va, unsigned size, View view) {
    va = wrap(va, view);
    if (tlb_lookup(current_->views[unsigned(view)].bank.write, va, size)) return true;
    Part parts[2];
    return translate_parts(va, size, Access::write, view, parts);
}

// parts[1].size is 0 when the access stays inside one page.
bool Mmu::translate_parts(std::uint64_t va, unsigned size, Access access, View view, Part (&parts)[2]) {
    unsigned in_first = std::min<unsigned>(size, unsigned(page_size - (va & (page_size - 1))));
    // An address that is none comes before any page's fault.
    if (size > in_first && canonical(va) && !canonical(wrap(va + in_first, view))) {
        c_.raise_not_canonical(va + in_first);
        return false;
    }
    std::optional<Translation> first = translate(va, access, view);
    if (!first) return false;
    parts[0] = {first->phys, in_first};
    parts[1] = {0, size - in_first};
    if (parts[1].size == 0) return true;
    std::optional<Translation> second = translate(wrap(va + in_first, view), access, view);
    if (!second) return false;
    parts[1].phys = second->phys;
    return true;
}

bool Mmu::slow_read(std::uint64_t va, unsigned size, void* to, View view) {
    Part parts[2];
    if (!translate_parts(va, size, Access::read, view, parts)) return false;
    if (void* host = tlb_lookup(current_->views[unsigned(view)].bank.read, va, size)) { // entered just now
        copy_sized(to, host, size);
    } else {
        auto* bytes = static_cast<std::uint8_t*>(to);
        physical_read(parts[0].phys, parts[0].size, bytes);
        if (parts[1].size) physical_read(parts[1].phys, parts[1].size, bytes + parts[0].size);
    }
    if (watching_) check_watchpoints(va, size, false);
    service_requests();
    return true;
}

// Whether a store may change these bytes now. False: they belong to the block being executed, and the engine executes
// this instruction again by itself (context.h, CodeGuard).
static bool may_change_code(EngineContext& e, FlatView const& memory, GuestPhys a, unsigned size) {
    FlatRange const* piece = size && e.code_guard ? memory.find_write(a) : nullptr;
    if (!piece || !piece->backing.ram || piece->range.last - a < size - 1) return true;
    std::uint64_t offset = piece->backing.offset + (a - piece->range.first);
    RamBlock& ram = *piece->backing.ram;
    if (!(ram.notes(offset).load(std::memory_order_acquire) & page_has_code)) return true;
    return e.code_guard->before_code_write(e, ram, offset, size);
}

bool Mmu::slow_write(std::uint64_t va, unsigned size, void const* from, View view) {
    Part parts[2];
    if (!translate_parts(va, size, Access::write, view, parts)) return false;
    if (void* host = tlb_lookup(current_->views[unsigned(view)].bank.write, va, size)) { // entered just now
        copy_sized(host, from, size);
        if (written_) written_->push_back({static_cast<std::uint8_t*>(host), size});
        service_requests();
        return true;
    }
    for (Part const& part : parts)
        if (!may_change_code(c_.engine, bus_.memory().view(), part.phys, part.size)) return false;
    auto const* bytes = static_cast<std::uint8_t const*>(from);
    physical_write(parts[0].phys, parts[0].size, bytes);
    if (parts[1].size) physical_write(parts[1].phys, parts[1].size, bytes + parts[0].size);
    if (watching_) check_watchpoints(va, size, true);
    service_requests();
    return true;
}

// The largest naturally sized and, where possible, aligned piece of a device access.
static unsigned device_step(GuestPhys a, unsigned size) {
    if (size == 1 || size == 2 || size == 4 || size == 8) return size;
    unsigned step = 8;
    while (step > size || (a & (step - 1))) step /= 2;
    return step;
}

void Mmu::physical_read(GuestPhys a, unsigned size, std::uint8_t* to) {
    FlatRange const* piece = bus_.memory().view().find_read(a);
    if (piece && piece->backing.ram && piece->range.last - a >= size - 1) {
        copy_sized(to, piece->backing.ram->host() + piece->backing.offset + (a - piece->range.first), size);
        return;
    }
    while (size) {
        unsigned step = device_step(a, size);
        std::uint64_t value = bus_.mmio_read(a, step);
        std::memcpy(to, &value, step);
        a += step, to += step, size -= step;
    }
}

void Mmu::physical_write(GuestPhys a, unsigned size, std::uint8_t const* from) {
    FlatRange const* piece = bus_.memory().view().find_write(a);
    if (piece && piece->backing.ram && piece->range.last - a >= size - 1) {
        RamBlock& ram = *piece->backing.ram;
        std::uint64_t offset = piece->backing.offset + (a - piece->range.first);
        copy_sized(ram.host() + offset, from, size);
        ram.written(offset, size);
        if (written_) written_->push_back({ram.host() + offset, size});
        return;
    }
    while (size) {
        unsigned step = device_step(a, size);
        std::uint64_t value = 0;
        std::memcpy(&value, from, step);
        bus_.mmio_write(a, step, value);
        a += step, from += step, size -= step;
    }
}

bool Mmu::misaligned(std::uint64_t va, unsigned size, View view) {
    if (view != View::user || size > 8 || !(va & (size - 1))) return false;
    if (!(c_.state.cr0 & cr0::am) || !(c_.state.rflags & flag::ac)) return false;
    if (!canonical(va)) return false; // that fault comes first, from the access itself
    c_.raise(vec::ac, 0);
    return true;
}

void* Mmu::rmw_pointer(std::uint64_t va, unsigned size) {
    va = wrap(va, view_);
    if (misaligned(va, size, view_)) return nullptr;
    if (void* host = tlb_lookup(current_->views[unsigned(view_)].bank.write, va, size)) {
        if (written_) written_->push_back({static_cast<std::uint8_t*>(host), size});
        return host;
    }
    Part parts[2];
    if (!translate_parts(va, size, Access::write, view_, parts) || parts[1].size) return nullptr;
    FlatView const& memory = bus_.memory().view();
    FlatRange const* piece = memory.find_write(parts[0].phys);
    FlatRange const* readable = memory.find_read(parts[0].phys);
    if (!piece || !piece->backing.ram || piece->range.last - parts[0].phys < size - 1) return nullptr;
    if (!readable || readable->backing.ram != piece->backing.ram) return nullptr;
    RamBlock& ram = *piece->backing.ram;
    std::uint64_t offset = piece->backing.offset + (parts[0].phys - piece->range.first);
    if (!may_change_code(c_.engine, memory, parts[0].phys, size)) return nullptr;
    // Whoever watches code must be told after the bytes have changed, which a pointer cannot promise.
    if (ram.notes(offset).load(std::memory_order_acquire) & page_has_code) return nullptr;
    if (watching_) check_watchpoints(va, size, true);
    ram.written(offset, size);
    if (written_) written_->push_back({ram.host() + offset, size});
    return ram.host() + offset;
}

MemoryOps const& Mmu::operations() {
    static constexpr MemoryOps table{
        .load =
            [](EngineContext& e, std::uint64_t va, unsigned size, void* to) {
                Mmu& m = *from(e).mmu;
                return !m.misaligned(va, size, m.view_) && m.read(va, size, to, m.view_);
            },
        .store =
            [](EngineContext& e, std::uint64_t va, unsigned size, void const* source) {
                Mmu& m = *from(e).mmu;
                return !m.misaligned(va, size, m.view_) && m.write(va, size, source, m.view_);
            },
        .rmw_pointer = [](EngineContext& e, std::uint64_t va,
                          unsigned size) { return from(e).mmu->rmw_pointer(va, size); },
        .rmw_lock = [](EngineContext& e) { from(e).mmu->bus_lock_.lock(); },
        .rmw_unlock = [](EngineContext& e) { from(e).mmu->bus_lock_.unlock(); },
        .divide_error = [](EngineContext& e) { from(e).raise(vec::de); },
        .alignment_fault = [](EngineContext& e, std::uint64_t) { raise_gp(from(e)); },
    };
    return table;
}

bool Mmu::debug_access(std::uint64_t va, std::span<std::uint8_t> bytes, bool write) {
    AddressSpace& memory = bus_.memory();
    while (!bytes.empty()) {
        std::uint64_t in_page = std::min<std::uint64_t>(bytes.size(), page_size - (va & (page_size - 1)));
        std::optional<GuestPhys> phys = walker_.peek(wrap(va, View::kernel));
        if (!phys) return false;
        std::uint8_t* host = memory.ram_pointer(*phys, in_page, write);
        if (!host) return false;
        if (write) {
            std::memcpy(host, bytes.data(), in_page);
            memory.ram_written(*phys, in_page);
        } else {
            std::memcpy(bytes.data(), host, in_page);
        }
        va += in_page;
        bytes = bytes.subspan(in_page);
    }
    return true;
}

} // namespace vmm::tcg::x86
