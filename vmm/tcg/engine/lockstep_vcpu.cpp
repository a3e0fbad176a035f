#include "vmm/tcg/engine/lockstep_vcpu.h"

#include "vmm/tcg/engine/lockstep_compare.h"

#include <Zydis/Zydis.h>
#include <fmt/core.h>

#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>

namespace vmm::tcg {

using vmm::x86::State;

Result<std::unique_ptr<LockstepVcpu>> LockstepVcpu::create(Config config) {
    auto memory = TRY(ShadowMemory::create(config.bus));
    return std::unique_ptr<LockstepVcpu>(new LockstepVcpu(std::move(config), std::move(memory)));
}

LockstepVcpu::LockstepVcpu(Config config, std::unique_ptr<ShadowMemory> memory)
    : config_(std::move(config)), memory_(std::move(memory)), recorder_(config_.bus),
      replay_(memory_->space(), config_.bus, recorder_.record(), [this] { memory_->follow_map().value(); }),
      first_(part(recorder_, first_shared_, config_.log, config_.first)),
      second_(part(replay_, second_shared_, quiet_, config_.second)) {
    second_.mmu().note_writes(&writes_);
}

X86Vcpu::Config LockstepVcpu::part(CpuBus& bus, Shared& shared, Log& log, BackendFactory backend) const {
    return {.bus = bus,
            .shared = shared,
            .log = log,
            .model = config_.model,
            .backend = std::move(backend),
            .bsp = config_.bsp,
            .cpuid = config_.cpuid,
            .trace_ranges = config_.trace_ranges,
            .block_at_a_time = true};
}

void LockstepVcpu::signal(CpuSignal what, std::uint8_t vector) {
    if (what == CpuSignal::sipi) sipi_vector_.store(vector, std::memory_order_relaxed);
    signals_.fetch_or(1u << unsigned(what), std::memory_order_release);
}

bool LockstepVcpu::has_work() const {
    return signals_.load(std::memory_order_acquire) || exit_asked_.load(std::memory_order_acquire) || first_.has_work();
}

void LockstepVcpu::set_state(State const& state) {
    first_.set_state(state);
    second_.set_state(state);
    memory_stale_ = true;
}

void LockstepVcpu::reset(bool bsp) {
    first_.reset(bsp);
    second_.reset(bsp);
    memory_stale_ = true;
}

// Both engines see a signal between the same two blocks.
void LockstepVcpu::pass_signals() {
    std::uint32_t bits = signals_.exchange(0, std::memory_order_acquire);
    for (CpuSignal what : {CpuSignal::nmi, CpuSignal::smi, CpuSignal::init, CpuSignal::sipi}) {
        if (!(bits >> unsigned(what) & 1)) continue;
        std::uint8_t vector = sipi_vector_.load(std::memory_order_relaxed);
        first_.signal(what, vector);
        second_.signal(what, vector);
    }
}

// Copying all of a State for each block would be most of the work.
void LockstepVcpu::note_before() {
    static_assert(std::is_trivially_copyable_v<State>);
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winvalid-offsetof"
    std::memcpy(static_cast<void*>(&before_), &first_.state_in_place(), offsetof(State, avx512));
#pragma GCC diagnostic pop
    before_.rflags = first_.rflags();
}

ExitReason LockstepVcpu::run(std::uint64_t budget) {
    std::uint64_t limit = budget ? first_.instructions() + budget : ~std::uint64_t(0);
    while (report_.empty()) {
        if (exit_asked_.exchange(false, std::memory_order_acq_rel) || first_.instructions() >= limit)
            return ExitReason::requested;
        pass_signals();
        if (std::exchange(memory_stale_, false)) {
            memory_->follow_map().value();
            memory_->copy_contents();
        }
        recorder_.record().clear();
        writes_.clear();
        replay_.begin();
        note_before();
        instructions_before_ = first_.instructions();
        std::optional<ExitReason> first = first_.turn(), second = second_.turn();
        ++blocks_;
        if (std::string what = difference(first, second); !what.empty())
            report_ = report(what);
        else if (first)
            return *first;
    }
    return ExitReason::internal_error;
}

template <class F> void LockstepVcpu::for_each_instruction(F visit) {
    ZydisMachineMode mode = before_.code64()                                  ? ZYDIS_MACHINE_MODE_LONG_64
                            : before_.seg[x86::cs].attributes & x86::attr::db ? ZYDIS_MACHINE_MODE_LEGACY_32
                                                                              : ZYDIS_MACHINE_MODE_LEGACY_16;
    std::uint64_t count = first_.instructions() - instructions_before_;
    std::uint64_t linear = before_.code64() ? before_.rip : std::uint32_t(before_.seg[x86::cs].base + before_.rip);
    for (std::uint64_t i = 0; i < count; ++i) {
        std::uint8_t bytes[ZYDIS_MAX_INSTRUCTION_LENGTH];
        std::size_t readable = sizeof bytes;
        while (readable && !second_.mmu().debug_access(linear, std::span(bytes).first(readable), false)) --readable;
        ZydisDisassembledInstruction decoded;
        if (!ZYAN_SUCCESS(ZydisDisassembleATT(mode, linear, bytes, readable, &decoded))) return;
        visit(decoded, linear);
        linear += decoded.info.length;
    }
}

// Whether the flags are the same but for those which the block leaves undefined; then the second engine takes the
// first's.
bool LockstepVcpu::same_flags() {
    std::uint64_t differ = first_.rflags() ^ second_.rflags();
    if (!differ) return true;
    if (differ & ~vmm::x86::flag::arithmetic) return false;
    std::uint64_t undefined = 0;
    for_each_instruction([&](ZydisDisassembledInstruction const& decoded, std::uint64_t) {
        ZydisAccessedFlags const& f = *decoded.info.cpu_flags;
        undefined &= ~std::uint64_t(f.modified | f.set_0 | f.set_1);
        undefined |= undefined_flags(decoded.info);
    });
    if (differ & ~undefined) return false;
    second_.set_arithmetic_flags(first_.rflags());
    return true;
}

std::string LockstepVcpu::difference(std::optional<ExitReason> first, std::optional<ExitReason> second) {
    if (std::string calls = replay_.difference(); !calls.empty()) return calls;
    if (first != second)
        return fmt::format("one engine stops ({}), the other does not ({})", first ? int(*first) : -1,
                           second ? int(*second) : -1);
    if (!same_flags() || !same_registers(first_.state_in_place(), second_.state_in_place())) return "registers differ";
    for (x86::WrittenBytes const& write : writes_)
        if (auto where = memory_->find_difference(write.host, write.size)) return "memory differs: " + *where;
    if (blocks_ % config_.whole_memory_every == 0)
        if (auto where = memory_->find_difference())
            return fmt::format("memory differs since some block among the last {}: {}", config_.whole_memory_every,
                               *where);
    return {};
}

std::string LockstepVcpu::report(std::string const& what) {
    State const after_first = first_.state(), after_second = second_.state();
    std::uint64_t count = first_.instructions() - instructions_before_;
    std::string text =
        fmt::format("lockstep: {} (first engine) and {} (second) part in block {}, after {} instructions: {}\n",
                    first_.engine_name(), second_.engine_name(), blocks_, instructions_before_, what);
    text += fmt::format("The block's {} instructions, at {:04x}:{:016x}:\n", count, before_.seg[x86::cs].selector,
                        before_.rip);
    for_each_instruction([&](ZydisDisassembledInstruction const& decoded, std::uint64_t linear) {
        text += fmt::format("  {:#018x}:  {}\n", linear, decoded.text);
    });
    text += "Fields that differ, first engine against second:\n" + different_fields(after_first, after_second);
    if (!recorder_.record().calls.empty()) text += "Accesses to the machine:\n";
    for (BusCall const& call : recorder_.record().calls) text += "  " + call.describe() + "\n";
    text += "Before:\n" + vmm::x86::describe(before_);
    text += fmt::format("After, {}:\n{}", first_.engine_name(), vmm::x86::describe(after_first));
    text += fmt::format("After, {}:\n{}", second_.engine_name(), vmm::x86::describe(after_second));
    return text;
}

} // namespace vmm::tcg
