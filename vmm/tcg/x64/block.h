// X64Block: a translated block: where its code lies and how it is linked.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/huge_memory.h"

#include <array>
#include <cstddef>
#include <cstdint>

namespace vmm::tcg::x64 {
class X64Block;
}

// The end of a direct jump. `near` is the jump in the block, `far` the one behind code that stores the condition codes,
// made when the first target that wants them is linked; both are rel32 fields in the writable view.
struct vmm::tcg::LinkSite {
    vmm::tcg::x64::X64Block* owner = nullptr;
    std::int32_t offset = 0; // in-page target
    std::uint64_t flags = 0; // ExitWord at `near`
    std::uint8_t* near = nullptr;
    std::uint8_t const* stub = nullptr;  // where an unlinked `near` goes
    std::uint8_t* far = nullptr;         // or null: not made yet
    std::uint8_t const* store = nullptr; // begins the code before `far`
    vmm::tcg::x64::X64Block* target = nullptr;
    // While there is a target: its other sites.
    vmm::tcg::LinkSite *next = nullptr, *previous = nullptr;
};

namespace vmm::tcg::x64 {

class X64Block final : public Translation {
public:
    X64Block(Backend& backend, unsigned* live) : backend_(backend), live_(live) { ++*live_; }
    ~X64Block() override {
        backend_.unlink(*this);
        --*live_;
    }

    static void* operator new(std::size_t, Pool<X64Block>& pool) { return pool.take(); }
    static void operator delete(void* p, Pool<X64Block>&) { Pool<X64Block>::give_back(p); }
    static void operator delete(void* p) { Pool<X64Block>::give_back(p); }

    std::uint8_t const* code = nullptr;     // writable view; entered with pc_base set
    std::uint8_t const* indirect = nullptr; // entered with the guest address in r14; sets pc_base
    std::int32_t start = 0;
    std::uint16_t guest_bytes = 0;
    // Where links lead to a block that crosses a page: the second page may be another one by now, so it is found by its
    // address. Null: does not cross.
    std::uint8_t const* checked = nullptr;
    bool flags_dead = false; // the block does not look at the condition codes it is entered with
    std::array<LinkSite, 2> sites;
    LinkSite* incoming = nullptr; // the first site that leads here

private:
    Backend& backend_;
    unsigned* live_;
};

} // namespace vmm::tcg::x64
