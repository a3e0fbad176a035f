// LocalApic: one CPU's local APIC, xAPIC and x2APIC (Intel SDM vol. 3 chapter 10). Registers as Table 10-1 names them.
// local_apic.cpp holds interrupt acceptance and priorities, _registers.cpp the register file, _msrs.cpp IA32_APIC_BASE
// and x2APIC access, _timer.cpp the timer.
#pragma once
#include "devices/core/roles.h"
#include "devices/irq/apic_bus.h"
#include "devices/irq/ext_int_source.h"
#include "vmm/base/log.h"
#include "vmm/base/timer_queue.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <atomic>
#include <optional>

namespace vmm::dev {

// What a local APIC tells its CPU. Called with the device lock held, from any thread: implementations note the event
// and kick the vCPU; they do not run guest code.
class CpuSignals {
public:
    virtual ~CpuSignals() = default;
    // LocalApic::interrupt_pending() went from false to true: the engine must look again (and leave HLT).
    virtual void interrupt_changed() = 0;
    virtual void nmi() = 0;
    virtual void smi() = 0;
    // INIT: the local APIC has already reset its own state.
    virtual void init() = 0;
    virtual void sipi(std::uint8_t vector) = 0;
};

// The CPU's time stamp counter, for the TSC-deadline timer. Device lock held.
class TscSource {
public:
    virtual ~TscSource() = default;
    virtual std::uint64_t tsc_now() const = 0;
    // Ticks in a second of virtual time.
    virtual std::uint64_t tsc_hz() const = 0;
    // The first virtual time at which the counter is `tsc` or more; TimerQueue::never when out of reach.
    virtual Nanoseconds when(std::uint64_t tsc) const = 0;
};

// Device lock held for every member except interrupt_pending().
class LocalApic final : public IoHandler, public Resettable, public Snapshottable {
public:
    struct Needs {
        CpuSignals& cpu;
        ApicBus& bus;
        ExtIntSource& pic;
        TimerQueue& timers;
        TscSource& tsc;
        Log& log;
    };
    struct Config {
        std::uint32_t id = 0; // initial APIC ID, as CPUID reports it
        bool bootstrap = false;
        bool x2apic = true;       // the CPU model has x2APIC
        bool tsc_deadline = true; // the CPU model has the TSC-deadline timer
        unsigned physical_address_bits = 40;
    };
    enum Lvt : unsigned { timer, thermal, performance, lint0, lint1, lvt_error, lvt_count };
    struct State {
        std::uint64_t apic_base = 0; // IA32_APIC_BASE
        std::uint32_t id = 0;        // 8 bits in xAPIC mode, 32 in x2APIC mode
        std::uint8_t tpr = 0;
        std::uint32_t ldr = 0; // as read: bits 31..24 in xAPIC mode, all in x2APIC mode
        std::uint32_t dfr = 0;
        std::uint32_t svr = 0;
        std::uint32_t esr = 0;
        std::uint32_t esr_pending = 0; // errors since ESR was last written
        std::uint64_t icr = 0;         // destination in bits 63..56 (xAPIC) or 63..32 (x2APIC)
        std::array<std::uint32_t, lvt_count> lvt{};
        std::array<std::uint32_t, 8> isr{}, tmr{}, irr{};
        std::uint32_t timer_initial = 0;
        std::uint32_t timer_divide = 0;
        Nanoseconds timer_start = 0;     // when the initial count was loaded
        Nanoseconds timer_deadline = -1; // when the timer goes off next; -1: never
        bool timer_stopped = false;      // a one-shot's count ended; periodic mode does not start it again
        std::uint64_t tsc_deadline = 0;
        bool ext_int_latched = false;             // an ExtINT message, not yet acknowledged
        std::array<std::uint8_t, 2> lint_level{}; // pin levels (0 or 1); they survive reset
    };

    LocalApic(Needs needs, Config config);

    // --- towards the CPU engine ---
    // Whether acknowledge() has something to deliver (before IF, shadows and blocking, which are the CPU's). Lock-free,
    // any thread; a true may be stale, acknowledge() decides.
    bool interrupt_pending() const { return pending_.load(std::memory_order_acquire); }
    // Takes the highest-priority deliverable interrupt: moves it from IRR to ISR, or runs the PIC's INTA cycle for
    // ExtINT. Its vector, or -1 when there is nothing to deliver any more.
    int acknowledge();
    // CR8: the upper nibble of TPR.
    std::uint8_t cr8() const { return state_.tpr >> 4; }
    void set_cr8(std::uint8_t value) { set_tpr(std::uint8_t(value << 4)); }
    std::uint8_t tpr() const { return state_.tpr; }
    void set_tpr(std::uint8_t value);
    // The MSRs it owns: IA32_APIC_BASE (0x1b), IA32_TSC_DEADLINE (0x6e0), x2APIC (0x800..0x8ff).
    // nullopt / false mean #GP(0). Writing IA32_APIC_BASE may move or hide the MMIO page: see below.
    std::optional<std::uint64_t> read_msr(std::uint32_t index);
    [[nodiscard]] bool write_msr(std::uint32_t index, std::uint64_t value);
    static bool owns_msr(std::uint32_t index);

    // --- the MMIO page: every CPU sees its own APIC, so the board routes by vCPU ---
    bool mmio_enabled() const { return enabled() && !x2apic(); }
    std::uint64_t mmio_base() const;
    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

    // --- from the bus and the board ---
    bool is_destination(ApicMessage const& message) const;
    // Whether fixed and lowest-priority messages are taken (hardware and software enabled).
    bool accepts_vectors() const;
    void receive(ApicMessage const& message);
    void set_lint(unsigned pin, bool level);
    // Processor priority (SDM section 10.8.3.1).
    std::uint8_t ppr() const;
    std::uint32_t id() const { return state_.id; }
    bool bootstrap() const { return config_.bootstrap; }
    // Leaves the APIC as PC firmware does on the bootstrap CPU: software enabled with spurious vector 0xff, LINT0
    // ExtINT (virtual wire), LINT1 NMI. For direct boot without firmware.
    void set_up_virtual_wire();
    // A thermal or performance event of the CPU: delivers its LVT entry.
    void deliver_local(Lvt entry);

    void reset() override;
    // The CPU took INIT by another way than a message (e.g. keyboard controller reset): all but ID and base is reset.
    void reset_by_init();
    void save(StateWriter& to) const override { save_state(to, state_); }
    Result<void> load(StateReader& from) override;
    // Takes over a state, wherever it comes from; a timer without a deadline gets the one its count leads to. Errors:
    // values it cannot have.
    Result<void> adopt(State const& state);

    State const& state() const { return state_; }
    // Counts left of the one-shot or periodic timer, and how long one takes.
    std::uint32_t timer_current() const;
    std::uint64_t timer_tick_ns() const;

private:
    bool enabled() const;
    bool x2apic() const;
    bool ext_int_requested() const;
    int deliverable_vector() const;
    void update_pending();
    void accept_vector(std::uint8_t vector, bool level_triggered);
    void end_of_interrupt();
    void raise_error(std::uint32_t bits);
    void sample_lint(unsigned pin, bool rising);

    std::optional<std::uint32_t> read_register(unsigned index);
    bool write_register(unsigned index, std::uint32_t value);
    void write_lvt(Lvt entry, std::uint32_t value);
    void write_svr(std::uint32_t value);
    void write_esr();
    void reset_registers();
    void send_ipi();

    std::optional<std::uint64_t> read_x2apic(unsigned index);
    bool write_x2apic(unsigned index, std::uint64_t value);
    bool write_apic_base(std::uint64_t value);
    void enter_x2apic();

    bool timer_is(std::uint32_t mode) const;
    void run_timer_up_to_now();
    void timer_mode_changes(std::uint32_t lvt);
    void set_timer_deadline(Nanoseconds deadline);
    void arm_timer();
    void write_timer_divide(std::uint32_t value);
    void timer_fired();
    void write_timer_initial(std::uint32_t value);
    void write_tsc_deadline(std::uint64_t value);

    Needs needs_;
    Config config_;
    State state_;
    std::atomic<bool> pending_{false}; // derived: ext_int_requested() or deliverable_vector() >= 0
    Timer timer_;
};

template <class V> void fields(V& v, LocalApic::State& s) {
    v.field("apic_base", s.apic_base);
    v.field("id", s.id);
    v.field("tpr", s.tpr);
    v.field("ldr", s.ldr);
    v.field("dfr", s.dfr);
    v.field("svr", s.svr);
    v.field("esr", s.esr);
    v.field("esr_pending", s.esr_pending);
    v.field("icr", s.icr);
    v.field("lvt", s.lvt);
    v.field("isr", s.isr);
    v.field("tmr", s.tmr);
    v.field("irr", s.irr);
    v.field("timer_initial", s.timer_initial);
    v.field("timer_divide", s.timer_divide);
    v.field("timer_start", s.timer_start);
    v.field("timer_deadline", s.timer_deadline);
    v.field("timer_stopped", s.timer_stopped);
    v.field("tsc_deadline", s.tsc_deadline);
    v.field("ext_int_latched", s.ext_int_latched);
    v.field("lint_level", s.lint_level);
}

} // namespace vmm::dev
