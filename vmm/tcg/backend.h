// Backend: what executes translated blocks: the interpreter or the x64 code generator. One per vCPU, used on its
// thread.
#pragma once
#include "vmm/tcg/context.h"
#include "vmm/tcg/ir/ir.h"

#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace vmm::tcg {

using HelperFunction = std::uint64_t (*)(EngineContext&, std::uint64_t, std::uint64_t, std::uint64_t);

// What a back end must know of the guest it runs.
struct GuestInfo {
    // The guest's program counter in the context and the mask that fits it to the mode's width (called rarely).
    std::uint64_t* pc = nullptr;
    std::uint64_t (*pc_mask)(EngineContext const&) = nullptr;
    struct Helper {
        HelperFunction function;
        char const* name;
        bool reads, writes, faults, memory, exits, pure; // see guest/x86/helpers.h
    };
    Helper (*helper)(std::uint16_t id) = nullptr;
    // Context offsets of the guest's i64 general registers, in its own numbering. A code generator keeps the first ones
    // in host registers while translated code runs; helpers without the R and W traits must not look at them.
    std::span<std::uint32_t const> registers{};
};

// One translated block in a back end's own form. Owned by the block cache.
class Translation {
public:
    virtual ~Translation() = default;
    // Set by the owner: only ever entered by run() (code that cannot be watched, single steps).
    bool transient = false;
    bool crosses_page = false;
    std::uint32_t host_bytes = 0; // of generated code
    std::uint64_t executions = 0; // how often it was entered; counted by back ends made for profiling
};

// What a back end counts, since it was made unless said otherwise.
struct BackendStatistics {
    std::uint64_t blocks = 0, guest_bytes = 0, host_bytes = 0; // translated
    std::uint64_t resets = 0;                                  // how often the code cache began anew
    std::uint64_t links = 0, links_now = 0;                    // direct jumps made to lead to their block; still so
    std::size_t cache_used = 0, cache_size = 0;                // bytes for generated code, now
};

// How run() ended.
enum class RunEnd : std::uint8_t {
    next,         // *GuestInfo::pc holds the next address; `site` names the direct jump that got there, or is null
    dispatch,     // a helper set pc (and perhaps mode)
    fault,        // engine.fault_pending; *pc is the faulting instruction's address
    exit_request, // engine.exit_request was seen at a block start; *pc is set
};
// A direct jump that could be linked: an opaque handle, valid until the translation it lies in dies.
struct LinkSite;
struct RunResult {
    RunEnd end = RunEnd::next;
    LinkSite* site = nullptr;
};

class Backend {
public:
    virtual ~Backend() = default;
    // Null: no room. The caller then destroys every translation it has and asks again, which cannot fail.
    virtual std::unique_ptr<Translation> translate(ir::Block const& block) = 0;
    // Executes from the start of `first`, following links and remembered addresses. engine.pc_base must be the page
    // base of its code; afterwards it is that of the last block executed.
    virtual RunResult run(Translation& first) = 0;
    // Makes `site` continue in `to` from now on. Only for targets in the same code page (the mapping cannot differ);
    // for one that crosses into the next page the back end must see to it that this one is the same (or not link at
    // all).
    virtual void link(LinkSite& site, Translation& to) = 0;
    // Undoes every link into `to`, which is about to die.
    virtual void unlink(Translation& to) = 0;
    // No translation will run again: from now on they may die without a word.
    virtual void abandon() {}
    virtual char const* name() const = 0;
    virtual BackendStatistics statistics() const { return {}; }
    // The host code of the block translated last, one instruction a line, with a line before each guest instruction's.
    // Empty: this back end makes none.
    virtual std::string disassemble_last() const { return {}; }
};

} // namespace vmm::tcg
