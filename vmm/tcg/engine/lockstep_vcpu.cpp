#include "vmm/tcg/engine/lockstep_vcpu.h"

#include "vmm/base/endian.h"

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

namespace {

// Whether everything a program could notice but the flags is the same. Padding makes comparing whole States impossible.
bool same(State const& a, State const& b) {
    auto bytes = [](auto const& x, auto const& y) { return std::memcmp(&x, &y, sizeof x) == 0; };
    auto table = [](x86::TableRegister const& x, x86::TableRegister const& y) {
        return x.base == y.base && x.limit == y.limit;
    };
    auto x87 = [&](x86::X87 const& x, x86::X87 const& y) {
        for (unsigned i = 0; i < 8; ++i)
            if (x.r[i].mantissa != y.r[i].mantissa || x.r[i].sign_exponent != y.r[i].sign_exponent) return false;
        return x.fcw == y.fcw && x.fsw == y.fsw && x.tags == y.tags && x.fop == y.fop && x.fip == y.fip &&
               x.fdp == y.fdp && x.fcs == y.fcs && x.fds == y.fds;
    };
    return a.rip == b.rip && bytes(a.gpr, b.gpr) && bytes(a.seg, b.seg) && table(a.gdtr, b.gdtr) &&
           table(a.idtr, b.idtr) && a.cr0 == b.cr0 && a.cr2 == b.cr2 && a.cr3 == b.cr3 && a.cr4 == b.cr4 &&
           a.xcr0 == b.xcr0 && a.efer == b.efer && bytes(a.dr, b.dr) && a.dr6 == b.dr6 && a.dr7 == b.dr7 &&
           bytes(a.ymm, b.ymm) && a.mxcsr == b.mxcsr && a.pkru == b.pkru && x87(a.x87, b.x87) && a.star == b.star &&
           a.lstar == b.lstar && a.cstar == b.cstar && a.sfmask == b.sfmask && a.kernel_gs_base == b.kernel_gs_base &&
           a.sysenter_cs == b.sysenter_cs && a.sysenter_esp == b.sysenter_esp && a.sysenter_eip == b.sysenter_eip &&
           a.pat == b.pat && a.misc_enable == b.misc_enable && a.tsc_adjust == b.tsc_adjust && a.tsc_aux == b.tsc_aux &&
           a.xss == b.xss && a.smbase == b.smbase && bytes(a.mc_banks, b.mc_banks) && bytes(a.mtrr, b.mtrr) &&
           a.activity == b.activity && a.interrupt_shadow == b.interrupt_shadow && a.debug_shadow == b.debug_shadow &&
           a.nmi_blocked == b.nmi_blocked && a.nmi_pending == b.nmi_pending && a.in_smm == b.in_smm;
}

// One line for each field whose value differs, by the names that snapshots use.
std::string different_fields(State const& a, State const& b) {
    StateWriter first, second;
    save_state(first, a);
    save_state(second, b);
    auto const &x = first.bytes(), &y = second.bytes();
    std::string text;
    for (std::size_t at = 0; at < x.size();) { // the stream's format: vmm/base/fields.h
        std::size_t name_size = x[at], values = at + 1 + name_size + 5;
        std::size_t size = x[at + 1 + name_size], count = load_le<std::uint32_t>(&x[at + 2 + name_size]);
        std::string name(reinterpret_cast<char const*>(&x[at + 1]), name_size);
        for (std::size_t i = 0; i < count; ++i) {
            auto value = [&](std::vector<std::uint8_t> const& bytes) {
                std::uint64_t v = 0;
                std::memcpy(&v, &bytes[values + i * size], size);
                return v;
            };
            if (value(x) == value(y)) continue;
            text += fmt::format("  {}{}: {:#x} against {:#x}\n", name, count > 1 ? fmt::format("[{}]", i) : "",
                                value(x), value(y));
        }
        at = values + size * count;
    }
    return text;
}

} // namespace

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

// Flags that this instruction leaves undefined (SDM vol. 2), or may leave, depending on a count.
static std::uint64_t undefined_flags(ZydisDecodedInstruction const& d) {
    using namespace vmm::x86;
    std::uint64_t undefined = d.cpu_flags->undefined;
    switch (d.mnemonic) {
    case ZYDIS_MNEMONIC_SHL:
    case ZYDIS_MNEMONIC_SHR:
    case ZYDIS_MNEMONIC_SAR:
    case ZYDIS_MNEMONIC_SHLD:
    case ZYDIS_MNEMONIC_SHRD: return undefined | flag::of | flag::af | flag::cf;
    case ZYDIS_MNEMONIC_ROL:
    case ZYDIS_MNEMONIC_ROR:
    case ZYDIS_MNEMONIC_RCL:
    case ZYDIS_MNEMONIC_RCR: return undefined | flag::of;
    default: return undefined;
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
    if (!same_flags() || !same(first_.state_in_place(), second_.state_in_place())) return "registers differ";
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
