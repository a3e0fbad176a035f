#include "vmm/tcg/engine/x86_vcpu.h"

#include "vmm/tcg/engine/report.h"
#include "vmm/tcg/guest/x86/events.h"
#include "vmm/tcg/guest/x86/exceptions.h"
#include "vmm/tcg/guest/x86/helper_row.h"
#include "vmm/tcg/guest/x86/system.h"
#include "vmm/tcg/interp/interpreter.h"
#include "vmm/tcg/ir/text.h"

#include <Zydis/Zydis.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstring>

namespace vmm::tcg {

using x86::Mode;

namespace {

// No pc_base: that of code in the last page is a multiple of the page size.
constexpr std::uint64_t not_entered = 1;

std::uint64_t pc_mask(EngineContext const& e) { return Mode{e.mode}.is64() ? ~std::uint64_t(0) : 0xffffffff; }

// The general registers' places, by number.
constexpr auto register_slots = [] {
    std::array<std::uint32_t, 16> slots{};
    for (unsigned i = 0; i < 16; ++i) slots[i] = std::uint32_t(x86::slot::gpr(i));
    return slots;
}();

} // namespace

std::unique_ptr<Backend> make_interpreter(EngineContext& context, GuestInfo const& guest) {
    return std::make_unique<interp::Interpreter>(context, guest);
}

X86Vcpu::X86Vcpu(Config config) : config_(std::move(config)), context_(std::make_unique<x86::X86Context>()) {
    x86::X86Context& c = *context_;
    c.bus = &config_.bus;
    c.model = &config_.model;
    c.cpuid = config_.cpuid;
    c.log = &config_.log;
    c.engine.fp_control = &c.state.mxcsr;
    c.engine.code_guard = this;
    mmu_ = std::make_unique<x86::Mmu>(c, config_.bus, config_.model, config_.shared.bus_lock);
    if (config_.tiny_tlb) mmu_->keep_few_entries();
    backend_ = config_.backend(
        c.engine, {.pc = &c.state.rip, .pc_mask = pc_mask, .helper = x86::helper_row, .registers = register_slots});
    cache_ = std::make_unique<BlockCache>(*backend_);
    config_.shared.code.add(*this);
    reset(config_.bsp);
}

X86Vcpu::~X86Vcpu() {
    config_.shared.code.remove(*this);
    backend_->abandon();
}

void X86Vcpu::request_exit() {
    exit_asked_.store(true, std::memory_order_release);
    context_->engine.exit_request.store(1, std::memory_order_release);
}

void X86Vcpu::interrupt_changed() { context_->engine.exit_request.store(1, std::memory_order_release); }

void X86Vcpu::signal(CpuSignal what, std::uint8_t vector) {
    if (what == CpuSignal::sipi) sipi_vector_.store(vector, std::memory_order_relaxed);
    signals_.fetch_or(1u << unsigned(what), std::memory_order_release);
    context_->engine.exit_request.store(1, std::memory_order_release);
}

void X86Vcpu::request_safe_point() {
    mmu_->request_flush();
    context_->engine.exit_request.store(1, std::memory_order_seq_cst);
}

void X86Vcpu::take_signals() {
    std::uint32_t bits = signals_.exchange(0, std::memory_order_acquire);
    if (!bits) return;
    x86::State& s = context_->state;
    auto has = [&](CpuSignal what) { return bits >> unsigned(what) & 1; };
    if (has(CpuSignal::init) && has(CpuSignal::sipi)) {
        // INIT forgets a SIPI that waits; one that came behind it is taken on the next round.
        constexpr std::uint32_t sipi = 1u << unsigned(CpuSignal::sipi);
        bits &= ~sipi;
        signals_.fetch_or(sipi, std::memory_order_release);
        context_->engine.exit_request.store(1, std::memory_order_release);
    }
    if (has(CpuSignal::nmi)) s.nmi_pending = true;
    if (has(CpuSignal::smi)) s.smi_pending = true;
    if (has(CpuSignal::init)) s.init_pending = true;
    if (has(CpuSignal::sipi)) s.sipi_pending = true, s.sipi_vector = sipi_vector_.load(std::memory_order_relaxed);
}

bool X86Vcpu::has_work() const {
    if (signals_.load(std::memory_order_acquire) || exit_asked_.load(std::memory_order_acquire)) return true;
    return x86::event_waits(context_->state, config_.bus.interrupt_pending());
}

vmm::x86::State X86Vcpu::state() const {
    x86::State s = context_->state;
    s.rflags = context_->rflags();
    return s;
}

void X86Vcpu::set_state(vmm::x86::State const& state) {
    context_->state = state;
    config_.bus.set_smm(state.in_smm);
    context_->engine.fault_pending = fault_none;
    open_site_ = nullptr;
    force_single_ = false;
    x86::state_replaced(*context_);
}

Result<std::string> X86Vcpu::translation_text(unsigned hottest) const {
    if (hottest && !config_.profile)
        return error("executions are not counted; start with -accel tcg,profile=on to have them");
    std::string text = translation_report(*cache_, backend_->statistics(), mmu_->statistics());
    return hottest ? text + "\n" + hottest_blocks(*cache_, hottest) : text;
}

void X86Vcpu::set_arithmetic_flags(std::uint64_t rflags) { set_cc_raw(context_->engine, rflags); }

void X86Vcpu::reset(bool bsp) { set_state(vmm::x86::reset_state(config_.model.signature(), bsp)); }

void X86Vcpu::drop_code(RamBlock& block, std::uint64_t page_offset, std::uint64_t mask) {
    cache_->drop(block, page_offset, mask);
    open_site_ = nullptr;
    ++drops_;
    // A repeated instruction may have overwritten itself: it stops here and is fetched again.
    if (executing_) context_->engine.exit_request.store(1, std::memory_order_release);
}

void X86Vcpu::enter_guest() {
    guest_entries_.fetch_add(1, std::memory_order_seq_cst);
    in_guest_.store(true, std::memory_order_seq_cst);
}

// Frames go through the TLB as a guest's stores do, and a page may be getting its first code just now: who notes it
// waits for this thread, or this thread sees the request here and drops its entries first.
void X86Vcpu::begin_delivery() {
    open_site_ = nullptr;
    enter_guest();
    if (context_->engine.exit_request.load(std::memory_order_seq_cst)) mmu_->service_requests();
}

void X86Vcpu::deliver_events() {
    begin_delivery();
    x86::handle_events(*context_, config_.bsp);
    leave_guest();
}

void X86Vcpu::deliver_fault() {
    begin_delivery();
    x86::deliver(*context_);
    leave_guest();
}

bool X86Vcpu::may_continue(EngineContext& e) {
    x86::X86Context const& c = *context_;
    if (config_.block_at_a_time || running_single_ || e.exit_request.load(std::memory_order_acquire) ||
        c.mode().is(Mode::single) || c.state.activity != vmm::x86::Activity::running ||
        x86::event_waits(c.state, config_.bus.interrupt_pending()))
        return false;
    entered_pc_base_ = not_entered; // the same address may mean another page from now on
    return true;
}

Translation* X86Vcpu::find(EngineContext& e, std::uint64_t address) {
    Mode const mode{e.mode};
    bool const plain = mode.is64() || (mode.is(Mode::flat) && address <= 0xffffffff);
    if (running_single_ || !plain || mode.is(Mode::single)) return nullptr;
    x86::FetchResult const* where = mmu_->known_code_page(address & ~(page_size - 1));
    if (!where) return nullptr;
    CachedBlock* block =
        cache_->find(*where->ram, where->ram_offset, std::uint16_t(address & (page_size - 1)), mode.bits);
    return block && !block->crosses_page ? block->translation.get() : nullptr;
}

bool X86Vcpu::before_code_write(EngineContext& e, RamBlock& block, std::uint64_t offset, std::uint64_t size) {
    if (running_single_ || !executing_) return true; // not executing_: a frame pushed between blocks
    // The back end may have gone on to other pages than the one it was entered in: then any code may be running.
    bool moved = e.pc_base != entered_pc_base_;
    if (!moved && (&block != running_ram_ || (offset & ~(page_size - 1)) != running_page_)) return true;
    if (!config_.shared.code.has_code(block, offset, size)) return true;
    e.fault_pending = fault_retry;
    return false;
}

void X86Vcpu::serve_requests() {
    context_->engine.exit_request.store(0, std::memory_order_seq_cst);
    mmu_->service_requests();
    config_.shared.code.take_invalidations(*this);
    take_signals();
}

ExitReason X86Vcpu::run(std::uint64_t budget) {
    std::uint64_t& count = context_->engine.insn_count;
    std::uint64_t limit = budget ? count + budget : ~std::uint64_t(0);
    for (;;) {
        if (auto end = turn()) return *end;
        if (count >= limit) return ExitReason::requested;
    }
}

std::optional<ExitReason> X86Vcpu::turn() {
    x86::X86Context& c = *context_;
    CodeTracker::set_thread_user(this);
    if (c.engine.exit_request.load(std::memory_order_acquire)) serve_requests();
    if (exit_asked_.exchange(false, std::memory_order_acq_rel)) return ExitReason::requested;
    if (x86::event_waits(c.state, config_.bus.interrupt_pending())) deliver_events();
    switch (c.state.activity) {
    case vmm::x86::Activity::halted: return ExitReason::halted;
    case vmm::x86::Activity::wait_for_sipi: return ExitReason::wait_for_sipi;
    case vmm::x86::Activity::shutdown: return ExitReason::shutdown;
    case vmm::x86::Activity::running: break;
    }
    run_some();
    return std::nullopt;
}

// Linear address of the code page last executed in.
static std::uint64_t linear_page(x86::X86Context const& c) {
    return c.state.code64() ? c.engine.pc_base : std::uint32_t(c.engine.pc_base + c.state.seg[x86::cs].base);
}

// Each block is to be seen by the loop.
bool X86Vcpu::every_block() const {
    return config_.block_at_a_time || config_.log.enabled(Trace::exec) || config_.log.enabled(Trace::cpu);
}

void X86Vcpu::run_some() {
    x86::X86Context& c = *context_;
    cache_->bury();
    bool stepping = c.mode().is(Mode::single);
    x86::StepStart step;
    if (stepping && !x86::begin_single_step(c, step)) return deliver_fault();
    running_single_ = stepping || force_single_;
    force_single_ = false;
    std::uint64_t linear = x86::linear_pc(c.state);
    CachedBlock* block = block_at_pc(c.engine.mode | (running_single_ ? std::uint64_t(Mode::single) : 0));
    RunResult end{RunEnd::fault, nullptr};
    std::uint64_t drops = drops_;
    if (block) {
        trace_execution(linear);
        end = execute(*block, linear);
    }
    if (c.engine.fault_pending == fault_retry) {
        c.engine.fault_pending = fault_none;
        force_single_ = true;
        return;
    }
    if (stepping && !c.engine.fault_pending) x86::after_single_step(c, step);
    if (c.engine.fault_pending) return deliver_fault();
    // A block dropped while it ran may have been the one the site lies in.
    open_site_ = running_single_ || every_block() || drops_ != drops ? nullptr : end.site;
    open_site_page_ = linear_page(c);
}

RunResult X86Vcpu::execute(CachedBlock& block, std::uint64_t linear) {
    EngineContext& e = context_->engine;
    if (open_site_ && !running_single_ && (linear & ~(page_size - 1)) == open_site_page_ && &block != uncached_.get())
        backend_->link(*open_site_, *block.translation);
    open_site_ = nullptr;
    e.pc_base = context_->state.rip - (linear & (page_size - 1));
    entered_pc_base_ = e.pc_base;
    running_ram_ = block.ram;
    running_page_ = block.page_offset;
    enter_guest();
    executing_ = true;
    RunResult end = backend_->run(*block.translation);
    executing_ = false;
    leave_guest();
    return end;
}

// Whether `bytes` of code from state.rip lie within the code segment.
bool X86Vcpu::code_limit_ok(std::uint64_t bytes) {
    x86::State const& s = context_->state;
    return s.code64() || s.rip + bytes - 1 <= s.seg[x86::cs].limit;
}

CachedBlock* X86Vcpu::block_at_pc(std::uint64_t mode) {
    x86::X86Context& c = *context_;
    if (!code_limit_ok(1)) return c.raise(vmm::x86::vec::gp, 0), nullptr;
    std::uint64_t linear = x86::linear_pc(c.state);
    x86::FetchResult where = mmu_->fetch_page(linear);
    if (!where) return nullptr;
    std::uint16_t start = std::uint16_t(linear & (page_size - 1));
    if (where.ram) {
        CachedBlock* found = cache_->find(*where.ram, where.ram_offset, start, mode);
        if (found && found->crosses_page) {
            // The second page must still be the one the block was made from.
            x86::FetchResult next = mmu_->fetch_page((linear & ~(page_size - 1)) + page_size);
            if (!next) return nullptr;
            if (next.ram != found->next_ram || next.ram_offset != found->next_page_offset) {
                cache_->drop(*where.ram, where.ram_offset, CodeTracker::granules(start, 1));
                found = nullptr;
            }
        }
        if (found && code_limit_ok(found->bytes)) return found;
    }
    std::unique_ptr<CachedBlock> made = translate(where, linear, mode);
    if (!made) return nullptr;
    if (!code_limit_ok(made->bytes)) {
        if (mode & Mode::single) return c.raise(vmm::x86::vec::gp, 0), nullptr;
        running_single_ = true;
        return block_at_pc(mode | Mode::single);
    }
    if (!made->ram) {
        if (uncached_) backend_->unlink(*uncached_->translation);
        uncached_ = std::move(made);
        return uncached_.get();
    }
    return &cache_->add(std::move(made));
}

std::unique_ptr<CachedBlock> X86Vcpu::translate(x86::FetchResult const& where, std::uint64_t linear,
                                                std::uint64_t mode) {
    CodeTracker& code = config_.shared.code;
    std::unique_ptr<CachedBlock> block(new (blocks_) CachedBlock);
    block->mode = mode;
    block->linear = linear;
    block->start = std::uint16_t(linear & (page_size - 1));
    if (where.ram && code.prepare_page(*this, *where.ram, where.ram_offset)) mmu_->drop_write_entries(where.host);
    // Lift from a copy: a write by another vCPU that comes before the granules are published goes unnoticed, so the
    // bytes are compared again afterwards.
    ir::Block& ir = ir_;
    x86::FetchResult next;
    for (bool same = false; !same;) {
        std::memcpy(code_copy_[0].data() + block->start, where.host + block->start, page_size - block->start);
        x86::CodeWindow window{code_copy_[0].data(), nullptr, block->start};
        if (x86::lift_block(Mode{mode}, config_.model, window, {}, ir) == x86::LiftStatus::needs_next_page) {
            next = mmu_->fetch_page((linear & ~(page_size - 1)) + page_size);
            if (!next) return nullptr;
            if (next.ram) {
                if (code.prepare_page(*this, *next.ram, next.ram_offset)) mmu_->drop_write_entries(next.host);
                if (code.publish(*this, *next.ram, next.ram_offset, 1)) mmu_->drop_write_entries(next.host);
            }
            std::memcpy(code_copy_[1].data(), next.host, page_size);
            window.next_page = code_copy_[1].data();
            x86::LiftStatus status = x86::lift_block(Mode{mode}, config_.model, window, {}, ir);
            VMM_ASSERT(status == x86::LiftStatus::ok);
        }
        std::uint64_t in_first = std::min<std::uint64_t>(ir.guest_bytes, page_size - block->start);
        if (where.ram &&
            code.publish(*this, *where.ram, where.ram_offset, CodeTracker::granules(block->start, in_first)))
            mmu_->drop_write_entries(where.host);
        same = !std::memcmp(code_copy_[0].data() + block->start, where.host + block->start, in_first) &&
               (!ir.crosses_page || !std::memcmp(code_copy_[1].data(), next.host, ir.guest_bytes - in_first));
    }
    ir.address = linear;
    block->bytes = ir.guest_bytes;
    block->guest_insns = ir.guest_insns;
    block->crosses_page = ir.crosses_page;
    if (where.ram && (!ir.crosses_page || next.ram)) {
        block->ram = where.ram;
        block->page_offset = where.ram_offset;
        if (ir.crosses_page) block->next_ram = next.ram, block->next_page_offset = next.ram_offset;
    }
    passes_.optimize(ir);
    trace_block(*block, ir, linear);
    block->translation = backend_->translate(ir);
    if (!block->translation) { // no room left: begin anew
        cache_->clear();
        cache_->bury();
        if (uncached_) backend_->unlink(*uncached_->translation);
        uncached_.reset();
        open_site_ = nullptr;
        block->translation = backend_->translate(ir);
    }
    if (config_.log.enabled(Trace::out_asm) && traced(linear))
        config_.log.trace(Trace::out_asm, fmt::format("OUT: [size={}]\n{}\n", block->translation->host_bytes,
                                                      backend_->disassemble_last()));
    block->translation->crosses_page = block->crosses_page;
    // Where CS has a limit, it is checked on the way in.
    bool limited = !Mode{mode}.is64() && !Mode{mode}.is(Mode::flat);
    block->translation->transient = (mode & Mode::single) || !block->ram || limited || every_block();
    return block;
}

bool X86Vcpu::traced(std::uint64_t linear) const {
    auto const& ranges = config_.trace_ranges;
    return ranges.empty() || std::ranges::any_of(ranges, [=](AddressRange r) { return r.contains(linear); });
}

void X86Vcpu::trace_execution(std::uint64_t linear) {
    Log& log = config_.log;
    if (!log.trace_mask() || !traced(linear)) return;
    if (log.enabled(Trace::exec))
        log.trace(Trace::exec,
                  fmt::format("Trace {}: [{:016x}/{:08x}]\n", config_.index, linear, context_->engine.mode));
    if (log.enabled(Trace::cpu)) log.trace(Trace::cpu, vmm::x86::describe(state()));
}

void X86Vcpu::trace_block(CachedBlock const& block, ir::Block const& ir, std::uint64_t linear) {
    Log& log = config_.log;
    if (!log.trace_mask() || !traced(linear)) return;
    if (log.enabled(Trace::in_asm)) {
        std::string text = fmt::format("----------------\nIN: [{:#x}] mode {:#x}\n", linear, block.mode);
        Mode mode{block.mode};
        for (ir::Inst const& inst : ir.insts) {
            if (inst.op != ir::Opcode::insn_start) continue;
            std::uint64_t at = (linear & ~(page_size - 1)) + std::uint64_t(inst.imm);
            std::uint8_t bytes[16] = {};
            for (unsigned i = 0; i < inst.aux && i < sizeof bytes; ++i) {
                std::uint64_t offset = std::uint64_t(inst.imm) + i;
                bytes[i] = code_copy_[offset >> page_bits & 1][offset & (page_size - 1)];
            }
            ZydisMachineMode machine = mode.is64()              ? ZYDIS_MACHINE_MODE_LONG_64
                                       : mode.code_bytes() == 4 ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                                : ZYDIS_MACHINE_MODE_LEGACY_16;
            ZydisDisassembledInstruction decoded;
            bool ok = ZYAN_SUCCESS(ZydisDisassembleATT(machine, at, bytes, inst.aux, &decoded));
            text += fmt::format("0x{:08x}:  {}\n", at, ok ? decoded.text : "(bad)");
        }
        log.trace(Trace::in_asm, text);
    }
    if (log.enabled(Trace::op)) log.trace(Trace::op, fmt::format("OP: [{:#x}]\n{}\n", linear, ir::to_text(ir)));
}

} // namespace vmm::tcg
