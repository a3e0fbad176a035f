// X64Backend: the code generator for x86-64 hosts.
#pragma once
#include "vmm/base/result.h"
#include "vmm/tcg/backend.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace vmm::tcg::x64 {

// Room for a block of the longest kind a lifter makes, and everything shared.
inline constexpr std::size_t min_cache_bytes = 2u << 20;

struct Options {
    std::size_t cache_bytes = 64u << 20; // -accel tcg,tb-size=; at least min_cache_bytes
    bool count_instructions = false;     // keep EngineContext::insn_count exact (costs speed)
    bool one_cpu = false;                // nobody else writes guest memory by the CPU's rules: LOCK costs nothing
    bool perf_map = false;               // name blocks in /tmp/perf-PID.map
    bool profile = false;                // count executions of each block
    // Torture: at each link, forget something with probability 1 in this; at each translation, claim that there is no
    // room. 0: never.
    unsigned unlink_one_in = 0, refuse_one_in = 0;
    std::uint64_t seed = 1;              // of these choices
    std::uint32_t vector_features = ~0u; // bit per ir::VecFeature: use the host's instructions (tests clear some)
};

// Whether this host has what generated code takes for granted: x86-64-v3 (AVX2, BMI2, ...).
bool supported();

class X64Backend final : public Backend {
public:
    // `context` and what `guest` points to must outlive the back end. Fails when the host gives no memory for code.
    static Result<std::unique_ptr<X64Backend>> create(EngineContext& context, GuestInfo const& guest,
                                                      Options const& options);
    ~X64Backend() override;

    std::unique_ptr<Translation> translate(ir::Block const& block) override;
    RunResult run(Translation& first) override;
    void link(LinkSite& site, Translation& to) override;
    void unlink(Translation& to) override;
    void abandon() override;
    char const* name() const override { return "jit"; }

    BackendStatistics statistics() const override;
    std::string disassemble_last() const override;
    // The host code of a translation as text, without marks.
    std::string disassemble(Translation const& translation) const;

private:
    struct Impl;
    explicit X64Backend(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace vmm::tcg::x64
