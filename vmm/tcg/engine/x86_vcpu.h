// X86Vcpu: the translating engine's vCPU: finds or makes the next block, lets a back end execute it, delivers events.
#pragma once
#include "vmm/cpu/vcpu.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/engine/block_cache.h"
#include "vmm/tcg/engine/code_tracker.h"
#include "vmm/tcg/guest/x86/context.h"
#include "vmm/tcg/guest/x86/lift.h"
#include "vmm/tcg/guest/x86/mmu.h"
#include "vmm/tcg/ir/passes.h"

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

namespace vmm::tcg {

// What the vCPUs of one machine share; outlives them.
struct Shared {
    CodeTracker code;
    std::mutex bus_lock; // read-modify-writes that have no host pointer
};

// Makes the back end for one vCPU's context.
using BackendFactory = std::function<std::unique_ptr<Backend>(EngineContext&, GuestInfo const&)>;
std::unique_ptr<Backend> make_interpreter(EngineContext& context, GuestInfo const& guest);

class X86Vcpu final : public Vcpu, private CodeUser, private CodeGuard {
public:
    struct Config {
        CpuBus& bus;
        Shared& shared;
        Log& log;
        vmm::x86::CpuModel model;
        BackendFactory backend;
        bool bsp = true;
        vmm::x86::CpuidContext cpuid{}; // place in the machine
        unsigned index = 0;             // in traces
        // Traces of blocks and their execution are of these guest addresses only; none: of all.
        std::vector<AddressRange> trace_ranges{};
        bool profile = false;         // the back end counts executions
        bool tiny_tlb = false;        // torture
        bool block_at_a_time = false; // blocks are never linked: each turn() is one
    };
    explicit X86Vcpu(Config config);
    ~X86Vcpu() override;

    ExitReason run(std::uint64_t budget) override;
    // One step of run(): what waits for the CPU, then one entry into the back end. A value: run() would have returned
    // it.
    std::optional<ExitReason> turn();
    // The next turn() executes one instruction at most.
    void next_alone() { force_single_ = true; }
    void request_exit() override;
    void interrupt_changed() override;
    void signal(CpuSignal what, std::uint8_t vector) override;
    bool has_work() const override;
    vmm::x86::State state() const override;
    void set_state(vmm::x86::State const& state) override;
    void reset(bool bsp) override;
    std::optional<std::uint64_t> translate(std::uint64_t linear) override { return mmu_->walker().peek(linear); }
    Result<std::string> translation_text(unsigned hottest) const override;
    std::string error_text() const override { return {}; }
    char const* engine_name() const override { return backend_->name(); }

    // Guest instructions executed so far, as far as the back end counts them; a block that faults counts whole.
    std::uint64_t instructions() const { return context_->engine.insn_count; }
    // The state in place, for looks between turns: all but the arithmetic flags, which are in rflags().
    vmm::x86::State const& state_in_place() const { return context_->state; }
    std::uint64_t rflags() const { return context_->rflags(); }
    // Takes over the arithmetic flags of `rflags`: where they are undefined, engines differ. Not while running.
    void set_arithmetic_flags(std::uint64_t rflags);
    // For debuggers and the monitor, while not running.
    x86::Mmu& mmu() { return *mmu_; }

private:
    void drop_code(RamBlock& block, std::uint64_t page_offset, std::uint64_t mask) override;
    void request_safe_point() override;
    bool in_guest() const override { return in_guest_.load(std::memory_order_seq_cst); }
    std::uint64_t guest_entries() const override { return guest_entries_.load(std::memory_order_seq_cst); }
    bool may_continue(EngineContext& context) override;
    Translation* find(EngineContext& context, std::uint64_t address) override;
    bool before_code_write(EngineContext& context, RamBlock& block, std::uint64_t offset, std::uint64_t size) override;

    void serve_requests();
    void take_signals();
    // Between them the thread may write guest memory by its TLB's entries (in_guest()).
    void enter_guest();
    void leave_guest() { in_guest_.store(false, std::memory_order_seq_cst); }
    // Interrupts, exceptions and the like: reads tables, pushes frames.
    void deliver_events();
    void deliver_fault();
    void begin_delivery();
    // Executes from state.rip until something needs the loop.
    void run_some();
    bool every_block() const;
    RunResult execute(CachedBlock& block, std::uint64_t linear);
    CachedBlock* block_at_pc(std::uint64_t mode);
    std::unique_ptr<CachedBlock> translate(x86::FetchResult const& where, std::uint64_t linear, std::uint64_t mode);
    bool code_limit_ok(std::uint64_t bytes);
    bool traced(std::uint64_t linear) const;
    void trace_block(CachedBlock const& block, ir::Block const& ir, std::uint64_t linear);
    void trace_execution(std::uint64_t linear);

    Config config_;
    std::unique_ptr<x86::X86Context> context_;
    std::array<std::uint32_t, 16> register_slots_{};
    std::unique_ptr<x86::Mmu> mmu_;
    std::unique_ptr<Backend> backend_;
    Pool<CachedBlock> blocks_;
    std::unique_ptr<BlockCache> cache_;
    std::array<std::array<std::uint8_t, page_size>, 2> code_copy_;
    ir::Block ir_; // being translated
    ir::Passes passes_;
    std::unique_ptr<CachedBlock> uncached_; // from memory that cannot be watched

    // Where the block now executing lies, for before_code_write.
    RamBlock* running_ram_ = nullptr;
    std::uint64_t running_page_ = 0;
    std::uint64_t entered_pc_base_ = 0;
    bool executing_ = false; // a block
    bool running_single_ = false;
    bool force_single_ = false;     // execute the next instruction alone
    std::uint64_t drops_ = 0;       // how often blocks were dropped
    LinkSite* open_site_ = nullptr; // a direct jump that led to state.rip and could be linked
    std::uint64_t open_site_page_ = 0;

    std::atomic<bool> in_guest_{false};
    std::atomic<std::uint64_t> guest_entries_{0};
    std::atomic<bool> exit_asked_{false};
    std::atomic<std::uint32_t> signals_{0}; // bit per CpuSignal
    std::atomic<std::uint8_t> sipi_vector_{0};
};

} // namespace vmm::tcg
