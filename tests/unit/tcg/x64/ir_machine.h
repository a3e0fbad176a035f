// IrMachine: a small made-up guest that runs IR blocks on a back end: registers, vectors, condition codes and paged
// memory with RAM, device and absent pages. For comparing back ends.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/cc.h"

#include <array>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace vmm::tcg::test {

struct State {
    EngineContext engine; // first
    std::array<std::uint64_t, 16> gpr{};
    std::uint64_t pc = 0, fuel = 0;
    alignas(32) std::array<std::array<std::uint64_t, 4>, 16> vec{};
    std::uint32_t mxcsr = 0x1f80;
    std::uint64_t fault_address = 0;
    struct IrMachine* machine = nullptr;
};
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
constexpr std::size_t gpr_slot(unsigned i) { return offsetof(State, gpr) + 8 * i; }
constexpr std::size_t vec_slot(unsigned i) { return offsetof(State, vec) + 32 * i; }
inline constexpr std::size_t fuel_slot = offsetof(State, fuel), pc_slot = offsetof(State, pc),
                             mxcsr_slot = offsetof(State, mxcsr);
#pragma GCC diagnostic pop

// Guest memory: pages of RAM at ram_base, then one device page, then nothing.
inline constexpr std::uint64_t ram_base = 0x10000, ram_pages = 4, device_page = ram_base + ram_pages * 4096;

enum HelperId : std::uint16_t { h_pure, h_swap, h_fault, h_sum, h_count };

struct IrMachine {
    using MakeBackend = std::function<std::unique_ptr<Backend>(EngineContext&, GuestInfo const&)>;
    IrMachine(MakeBackend const& make, unsigned registers);
    ~IrMachine();

    // Runs blocks by in-page offset until pc has none, a fault, or a dispatch; says how it ended.
    std::string run(std::map<std::int32_t, ir::Block> const& blocks, std::int32_t start);
    // Everything a guest can see, as text.
    std::string dump() const;

    std::uint8_t* page(std::uint64_t va) {
        if (va < ram_base || va >= device_page + 4096) return nullptr;
        return memory.data() + (va - ram_base);
    }
    bool access(std::uint64_t va, unsigned size, void* data, bool write);

    State state;
    std::vector<std::uint8_t> memory = std::vector<std::uint8_t>((ram_pages + 1) * 4096);
    TlbBank bank;
    bool fill_tlb = true;
    unsigned exits = 0;
    std::array<std::uint32_t, 16> register_slots{};
    std::unique_ptr<Backend> backend;
    std::map<std::int32_t, std::unique_ptr<Translation>> translations;
};

} // namespace vmm::tcg::test
