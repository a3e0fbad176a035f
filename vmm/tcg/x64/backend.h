// X64Backend: the code generator for x86-64 hosts.
#pragma once
#include "vmm/base/result.h"
#include "vmm/tcg/backend.h"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace vmm::tcg::x64 {

struct Options {
    std::size_t cache_bytes = 64u << 20; // -accel tcg,tb-size=
    bool count_instructions = false;     // keep EngineContext::insn_count exact (costs speed)
    bool perf_map = false;               // name blocks in /tmp/perf-PID.map
    // Torture: at each link, forget something with probability 1 in this. 0: never.
    unsigned unlink_one_in = 0;
    std::uint32_t vector_features = ~0u; // bit per ir::VecFeature: use the host's instructions (tests clear some)
};

struct Statistics {
    std::uint64_t blocks = 0, guest_bytes = 0, host_bytes = 0, resets = 0;
    std::size_t cache_used = 0, cache_size = 0;
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
    char const* name() const override { return "jit"; }

    Statistics statistics() const;
    // The host code of a translation as text, one instruction a line (-d out_asm).
    std::string disassemble(Translation const& translation) const;

private:
    struct Impl;
    explicit X64Backend(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

} // namespace vmm::tcg::x64
