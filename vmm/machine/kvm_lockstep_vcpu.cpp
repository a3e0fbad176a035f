#include "vmm/machine/kvm_lockstep_vcpu.h"

#include "vmm/tcg/engine/lockstep_compare.h"

#include <Zydis/Zydis.h>
#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace vmm {

using x86::State;

struct KvmLockstepVcpu::Instruction {
    bool is(ZydisMnemonic mnemonic) const { return known && decoded.info.mnemonic == mnemonic; }
    bool repeats() const {
        return known &&
               (decoded.info.attributes & (ZYDIS_ATTRIB_HAS_REP | ZYDIS_ATTRIB_HAS_REPE | ZYDIS_ATTRIB_HAS_REPNE));
    }
    ZydisDisassembledInstruction decoded{};
    bool known = false;      // bytes that could be read and decoded
    std::string unchecked{}; // why the outcome is not compared: the mnemonic; "": it is
};

Result<std::unique_ptr<KvmLockstepVcpu>> KvmLockstepVcpu::create(Config config) {
    if (!config.machine.caps().debug_blocks_irqs)
        return error(
            "lockstep=on: this host's KVM cannot hold interrupts back while it steps (Linux 5.18 and later can)");
    auto memory = TRY(tcg::ShadowMemory::create(config.bus));
    std::unique_ptr<KvmLockstepVcpu> both(new KvmLockstepVcpu(std::move(config), std::move(memory)));
    both->kvm_ = TRY(kvm::KvmVcpu::create({.machine = both->config_.machine,
                                           .bus = both->recorder_,
                                           .model = both->config_.model,
                                           .cpuid = both->config_.cpuid,
                                           .bsp = both->config_.bsp}));
    TRY(both->load(both->kvm_->state()));
    return both;
}

KvmLockstepVcpu::KvmLockstepVcpu(Config config, std::unique_ptr<tcg::ShadowMemory> memory)
    : config_(std::move(config)), memory_(std::move(memory)), recorder_(config_.bus),
      replay_(memory_->space(), config_.bus, recorder_.record(), [this] { memory_->follow_map().value(); }),
      interp_({.bus = replay_,
               .shared = shared_,
               .log = quiet_,
               .model = config_.model,
               .backend = tcg::make_interpreter,
               .bsp = config_.bsp,
               .cpuid = config_.cpuid,
               .block_at_a_time = true}) {
    interp_.mmu().note_writes(&writes_);
}

KvmLockstepVcpu::~KvmLockstepVcpu() {
    if (!compared_) return;
    std::string names;
    for (auto const& [name, count] : skipped_) names += fmt::format("{} {} {}", names.empty() ? "" : ",", name, count);
    config_.log.message("", fmt::format("lockstep: {} instructions compared; not compared:{}", compared_,
                                        names.empty() ? " none" : names));
}

Result<void> KvmLockstepVcpu::load(State const& state) {
    kvm_->set_state(state);
    // The place where KVM steps from is that of this call (KVM API, KVM_SET_GUEST_DEBUG).
    TRY(kvm_->set_guest_debug({.single_step = true}));
    state_ = state;
    stale_ = true;
    return {};
}

void KvmLockstepVcpu::signal(CpuSignal what, std::uint8_t vector) {
    if (what != CpuSignal::nmi) kvm_->signal(what, vector);
    signals_.fetch_or(1u << unsigned(what), std::memory_order_release);
}

bool KvmLockstepVcpu::has_work() const {
    return signals_.load(std::memory_order_acquire) || exit_asked_.load(std::memory_order_acquire) ||
           (state_.activity == x86::Activity::halted && (state_.rflags & x86::flag::if_) &&
            config_.bus.interrupt_pending()) ||
           state_.activity == x86::Activity::running;
}

State KvmLockstepVcpu::state() const {
    State s = state_;
    s.nmi_pending = nmi_waits_ || (signals_.load(std::memory_order_acquire) >> unsigned(CpuSignal::nmi) & 1);
    return s;
}

void KvmLockstepVcpu::set_state(State const& state) {
    State s = state;
    nmi_waits_ = std::exchange(s.nmi_pending, false);
    if (auto done = load(s); !done) report_ = done.error().message();
}

void KvmLockstepVcpu::reset(bool bsp) { set_state(x86::reset_state(config_.model.signature(), bsp)); }

void KvmLockstepVcpu::copy_all() {
    memory_->follow_map().value();
    memory_->copy_contents();
    interp_.set_state(state_);
    stale_ = false;
}

ExitReason KvmLockstepVcpu::run(std::uint64_t budget) {
    std::uint64_t const limit = budget ? compared_ + budget : ~std::uint64_t(0);
    while (report_.empty()) {
        if (exit_asked_.exchange(false, std::memory_order_acq_rel) || compared_ >= limit) return ExitReason::requested;
        if (stale_) copy_all();
        std::uint32_t signalled = signals_.exchange(0, std::memory_order_acq_rel);
        constexpr std::uint32_t nmi = 1u << unsigned(CpuSignal::nmi);
        nmi_waits_ |= (signalled & nmi) != 0;
        signalled &= ~nmi;
        if (!signalled && !take_event()) {
            if (state_.activity == x86::Activity::halted) return ExitReason::halted;
            if (state_.activity == x86::Activity::wait_for_sipi) return ExitReason::wait_for_sipi;
            if (state_.activity == x86::Activity::shutdown) return ExitReason::shutdown;
        }
        if (signalled) {
            ++skipped_["a signal (SMI, INIT, SIPI)"];
            recorder_.record().clear();
            if (step_kvm({}) == ExitReason::internal_error) break;
            state_ = kvm_->state();
            stale_ = true;
        } else if (auto end = step()) {
            return *end;
        }
    }
    return ExitReason::internal_error;
}

// An interrupt or NMI is under delivery in both when it is the CPU's turn to take it; by itself neither takes any.
bool KvmLockstepVcpu::take_event() {
    if (state_.event_pending || state_.activity == x86::Activity::shutdown ||
        state_.activity == x86::Activity::wait_for_sipi)
        return false;
    if (nmi_waits_ && !state_.nmi_blocked && !state_.debug_shadow) {
        nmi_waits_ = false;
        return take(x86::vec::nmi);
    }
    if (!config_.bus.interrupt_pending() || !(state_.rflags & x86::flag::if_) || state_.interrupt_shadow) return false;
    auto vector = config_.bus.acknowledge_interrupt();
    return vector && take(*vector);
}

bool KvmLockstepVcpu::take(std::uint8_t vector) {
    State s = state_;
    s.activity = x86::Activity::running;
    s.nmi_blocked |= vector == x86::vec::nmi;
    s.event_pending = true, s.event_vector = vector, s.event_has_error = s.event_is_software = false;
    return place(s);
}

// Both engines go on from `s`; RAM is as it was.
bool KvmLockstepVcpu::place(State const& s) {
    if (auto done = load(s); !done) return report_ = done.error().message(), false;
    stale_ = false;
    interp_.set_state(s);
    return true;
}

KvmLockstepVcpu::Instruction KvmLockstepVcpu::decode(State const& s) {
    Instruction instruction;
    ZydisMachineMode mode = s.code64()                                  ? ZYDIS_MACHINE_MODE_LONG_64
                            : s.seg[x86::cs].attributes & x86::attr::db ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                                        : ZYDIS_MACHINE_MODE_LEGACY_16;
    std::uint64_t linear = s.code64() ? s.rip : std::uint32_t(s.seg[x86::cs].base + s.rip);
    std::uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
    std::size_t readable = sizeof bytes;
    while (readable && !interp_.mmu().debug_access(linear, std::span(bytes).first(readable), false)) --readable;
    instruction.known = ZYAN_SUCCESS(ZydisDisassembleATT(mode, linear, bytes, readable, &instruction.decoded));
    if (!instruction.known) return instruction;
    // Clocks, counters, chance and what describes the host.
    static constexpr ZydisMnemonic hosts[] = {ZYDIS_MNEMONIC_RDTSC,  ZYDIS_MNEMONIC_RDTSCP, ZYDIS_MNEMONIC_CPUID,
                                              ZYDIS_MNEMONIC_RDPMC,  ZYDIS_MNEMONIC_RDRAND, ZYDIS_MNEMONIC_RDSEED,
                                              ZYDIS_MNEMONIC_VMCALL, ZYDIS_MNEMONIC_VMMCALL};
    ZydisMnemonic const mnemonic = instruction.decoded.info.mnemonic;
    auto const number = std::uint32_t(s.gpr[x86::rcx]);
    bool const own_msr = (mnemonic == ZYDIS_MNEMONIC_RDMSR || mnemonic == ZYDIS_MNEMONIC_WRMSR) &&
                         (number == x86::msr::tsc || number == x86::msr::apic_base || number == x86::msr::tsc_adjust ||
                          number == x86::msr::tsc_deadline || number >> 8 == 8 || number >> 16 == 0x4b56);
    bool const reads_cr8 = mnemonic == ZYDIS_MNEMONIC_MOV &&
                           instruction.decoded.operands[1].type == ZYDIS_OPERAND_TYPE_REGISTER &&
                           instruction.decoded.operands[1].reg.value == ZYDIS_REGISTER_CR8;
    if (std::ranges::find(hosts, mnemonic) != std::end(hosts))
        instruction.unchecked = ZydisMnemonicGetString(mnemonic);
    else if (own_msr)
        instruction.unchecked = fmt::format("{} {:#x}", ZydisMnemonicGetString(mnemonic), number);
    else if (reads_cr8)
        instruction.unchecked = "mov from cr8";
    return instruction;
}

namespace {

// Looks at the board that KVM's side takes at each entry, or at an MSR that KVM does not know; no instruction does.
bool only_kvm_asks(tcg::BusCall const& call) {
    using Kind = tcg::BusCall::Kind;
    bool const msr = call.kind == Kind::msr_read || call.kind == Kind::msr_write;
    return call.kind == Kind::task_priority || call.kind == Kind::tsc || (msr && !call.answered) ||
           (call.kind == Kind::msr_read && call.address == x86::msr::apic_base);
}

} // namespace

// KVM steps an iteration of a repeated string instruction at a time; the interpreter does all of them.
ExitReason KvmLockstepVcpu::step_kvm(Instruction const& instruction) {
    std::uint64_t const from = instruction.decoded.runtime_address;
    for (;;) {
        ExitReason reason = kvm_->run(0);
        if (reason == ExitReason::internal_error) return report_ = kvm_->error_text(), reason;
        if (reason == ExitReason::requested) continue;
        if (!instruction.repeats() || reason != ExitReason::debug || kvm_->debug_exit().pc != from) {
            std::erase_if(recorder_.record().calls, only_kvm_asks);
            recorder_.record().interrupt_lines.clear();
            return reason;
        }
    }
}

// A step may end within a repeated string instruction that it did not begin with: to the end of that.
ExitReason KvmLockstepVcpu::finish_repeats(ExitReason reason, State& after) {
    for (after = kvm_->state(); reason == ExitReason::debug && after.rflags & x86::flag::rf; after = kvm_->state()) {
        Instruction const next = decode(after);
        if (!next.repeats()) break;
        reason = step_kvm(next);
    }
    return reason;
}

// The interpreter goes on from where KVM is.
void KvmLockstepVcpu::follow(State const& after) {
    bool const elsewhere = after.rip < state_.rip || after.rip - state_.rip > ZYDIS_MAX_INSTRUCTION_LENGTH;
    state_ = after;
    if (elsewhere)
        copy_all(); // an exception: its frame is in RAM
    else
        interp_.set_state(after);
}

// The interpreter does what KVM has done: the instruction, or more. KVM comes back from an exception, and after an
// access to a device, with the next instruction done as well; one that emulates does not step the code of ring 3, where
// an IRET or SYSRET goes to, and comes back with the next exception. The flags that were left undefined on the way;
// nothing when one of the instructions is not to be compared.
std::optional<std::uint64_t> KvmLockstepVcpu::catch_up(Instruction instruction, State const& after) {
    constexpr unsigned usual = 4, with_devices = 64, longest = 100'000;
    bool const leaves = instruction.is(ZYDIS_MNEMONIC_IRETQ) || instruction.is(ZYDIS_MNEMONIC_IRETD) ||
                        instruction.is(ZYDIS_MNEMONIC_SYSRET) || instruction.is(ZYDIS_MNEMONIC_SYSEXIT);
    unsigned const most = leaves || state_.cpl() == 3 || instruction.repeats() ? longest
                          : recorder_.record().calls.empty()                   ? usual
                                                                               : with_devices;
    std::uint64_t undefined = 0;
    for (unsigned n = 0;;) {
        if (instruction.known && instruction.decoded.info.cpu_flags) {
            ZydisAccessedFlags const& flags = *instruction.decoded.info.cpu_flags;
            undefined &= ~std::uint64_t(flags.modified | flags.set_0 | flags.set_1);
            undefined |= tcg::undefined_flags(instruction.decoded.info);
        }
        interp_.next_alone();
        interp_.turn();
        ++compared_;
        State const& s = interp_.state_in_place();
        if ((s.rip == after.rip && s.gpr[x86::rsp] == after.gpr[x86::rsp]) || ++n == most) return undefined;
        instruction = decode(s);
        if (!instruction.unchecked.empty()) return ++skipped_[instruction.unchecked], std::nullopt;
    }
}

// KVM steps by TF, which an event that is delivered pushes; the guest's own was not set.
void KvmLockstepVcpu::clear_pushed_trap_flags() {
    if (!state_.event_pending) return;
    constexpr std::uint8_t tf = x86::flag::tf >> 8;
    for (tcg::x86::WrittenBytes const& write : writes_) {
        std::uint8_t* original = memory_->original_of(write.host);
        for (unsigned n = 1; original && n < write.size; n += 2)
            if (original[n] == (write.host[n] | tf)) original[n] = write.host[n];
    }
}

std::optional<ExitReason> KvmLockstepVcpu::step() {
    Instruction const instruction = decode(state_);
    writes_.clear();
    recorder_.record().clear();
    State after;
    ExitReason reason = step_kvm(instruction);
    if (reason != ExitReason::internal_error) reason = finish_repeats(reason, after);
    if (reason == ExitReason::internal_error) return reason;
    if (!kvm_->error_text().empty()) return report_ = kvm_->error_text(), ExitReason::internal_error;
    // To step is to trap, and a trap ends HLT.
    bool const stepped_out = reason == ExitReason::debug && instruction.is(ZYDIS_MNEMONIC_HLT) &&
                             after.rip == state_.rip + instruction.decoded.info.length;
    if (stepped_out) after.activity = x86::Activity::halted, reason = ExitReason::halted;
    std::optional<ExitReason> end;
    if (reason != ExitReason::debug) end = reason;
    if (!instruction.unchecked.empty()) {
        ++skipped_[instruction.unchecked];
        follow(after);
        return end;
    }
    replay_.begin();
    std::optional<std::uint64_t> undefined = catch_up(instruction, after);
    if (!undefined) { // came to an instruction whose outcome is the host's
        follow(after);
        return end;
    }
    if (std::string what = difference(*undefined, after); !what.empty()) {
        report_ = report(instruction, what, after);
        return ExitReason::internal_error;
    }
    if (!stepped_out)
        state_ = after;
    else if (!place(after))
        return ExitReason::internal_error;
    return end;
}

namespace {

// What KVM does not tell, or tells in another way that no program can see, is taken from it.
State as_kvm_tells(State s, State const& kvm) {
    for (unsigned i = 0; i < x86::seg_count; ++i) {
        bool const neither = !((s.seg[i].attributes | kvm.seg[i].attributes) & x86::attr::present);
        bool const null_stack = i == x86::ss && s.code64() && s.seg[i].selector < 4; // nothing of it is used
        if ((neither || null_stack) && s.seg[i].selector == kvm.seg[i].selector) s.seg[i] = kvm.seg[i];
    }
    s.x87.fop = kvm.x87.fop, s.x87.fip = kvm.x87.fip, s.x87.fdp = kvm.x87.fdp;
    s.x87.fcs = kvm.x87.fcs, s.x87.fds = kvm.x87.fds;
    return s;
}

} // namespace

std::string KvmLockstepVcpu::difference(std::uint64_t undefined, State const& after) {
    if (std::string calls = replay_.difference(); !calls.empty()) return calls;
    std::uint64_t differ = (interp_.rflags() ^ after.rflags) & ~std::uint64_t(x86::flag::rf);
    if (differ & ~undefined) return fmt::format("flags differ: {:#x} and {:#x}", after.rflags, interp_.rflags());
    if (differ) interp_.set_arithmetic_flags(after.rflags);
    if (!tcg::same_registers(after, as_kvm_tells(interp_.state_in_place(), after))) return "registers differ";
    clear_pushed_trap_flags();
    for (tcg::x86::WrittenBytes const& write : writes_)
        if (auto where = memory_->find_difference(write.host, write.size)) return "memory differs: " + *where;
    constexpr std::uint64_t whole_memory_every = 1 << 16;
    if (compared_ % whole_memory_every == 0)
        if (auto where = memory_->find_difference())
            return fmt::format("memory differs since some instruction among the last {}: {}", whole_memory_every,
                               *where);
    return {};
}

std::string KvmLockstepVcpu::report(Instruction const& instruction, std::string const& what, State const& after) {
    State const interp = interp_.state();
    std::string text = fmt::format("lockstep: kvm (first engine) and interp (second) part after {} instructions: {}\n",
                                   compared_, what);
    text += fmt::format("The instruction, at {:04x}:{:016x}: {}\n", state_.seg[x86::cs].selector, state_.rip,
                        instruction.known ? instruction.decoded.text : "not readable");
    text += "Fields that differ, first engine against second:\n" + tcg::different_fields(after, interp);
    if (!recorder_.record().calls.empty()) text += "Accesses to the machine:\n";
    for (tcg::BusCall const& call : recorder_.record().calls) text += "  " + call.describe() + "\n";
    text += "Before:\n" + x86::describe(state_);
    text += "After, kvm:\n" + x86::describe(after);
    text += "After, interp:\n" + x86::describe(interp);
    return text;
}

} // namespace vmm
