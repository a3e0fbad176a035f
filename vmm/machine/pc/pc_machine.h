// PcMachine: the i440FX/PIIX PC: which device sits where, wired to which line. The board is a list; behaviour is in
// devices.
#pragma once
#include "devices/core/char_port.h"
#include "devices/input/i8042.h"
#include "devices/input/ps2_keyboard.h"
#include "devices/input/ps2_mouse.h"
#include "devices/irq/apic_bus.h"
#include "devices/irq/i8259.h"
#include "devices/irq/io_apic.h"
#include "devices/irq/local_apic.h"
#include "devices/pci/bus.h"
#include "devices/pci/config_ports.h"
#include "devices/pci/i440fx.h"
#include "devices/pci/piix3.h"
#include "devices/pci/piix4_pm.h"
#include "devices/platform/acpi_pm.h"
#include "devices/platform/debug_ports.h"
#include "devices/platform/pc_testdev.h"
#include "devices/platform/port92.h"
#include "devices/serial/uart16550.h"
#include "devices/timer/hpet.h"
#include "devices/timer/i8254.h"
#include "devices/timer/mc146818.h"
#include "devices/timer/speaker_gate.h"
#include "firmware/loader/kernel_loader.h"
#include "vmm/base/checked.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/timer_queue.h"
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/machine/pc/engines.h"
#include "vmm/machine/pc/kernel_controllers.h"
#include "vmm/machine/pc/pc_cpu_bus.h"
#include "vmm/machine/vcpu_thread.h"

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vmm {

struct PcConfig {
    std::uint64_t ram_bytes = 128 * MiB;
    unsigned cpus = 1; // those that are there, of the topology's
    unsigned sockets = 1, cores = 1, threads = 1;
    x86::CpuModel cpu_model;
    // A present port's output; null: the port is not there.
    std::array<dev::CharSink*, 4> serial{};
    struct Debugcon {
        dev::CharSink* sink;
        std::uint16_t port = 0xe9;
    };
    std::optional<Debugcon> debugcon;
    struct DebugExit {
        std::uint16_t port = 0x501, size = 2;
    };
    std::optional<DebugExit> debug_exit;
    bool testdev = false;
    std::optional<firmware::KernelLoader> kernel;
    bool ram_prealloc = false;           // -mem-prealloc: the host's pages are taken at the start
    bool ram_in_core_dumps = true;       // -machine dump-guest-core=
    std::array<std::uint8_t, 16> uuid{}; // -uuid, all zero: none
    // -rtc: what the real-time clock shows when the machine is made, and what moves it on.
    enum class RtcClock : std::uint8_t { host, monotonic, guest };
    RtcClock rtc_clock = RtcClock::host;
    Nanoseconds rtc_start = host_realtime(); // since 1970
    bool rtc_slew = false;
    bool hpet = true;
    bool acpi = true; // tables; the power management block is there in any case
};

// What the guest does to the machine as a whole. Called on the loop's thread without the device lock.
struct PcEvents {
    std::function<void()> on_reset_request; // triple fault, reset port, keyboard controller
    std::function<void()> on_power_off;
    std::function<void(int status)> on_debug_exit;
    std::function<void(std::string const& text)> on_internal_error;
};

// Made and used on the loop's thread; vCPU threads come and go inside. Starts stopped, in the state after reset.
class PcMachine {
public:
    struct Needs {
        EventLoop& loop;
        Log& log;
        Engine& engine;
        Mutex& device_lock; // guards every device; outlives the machine
        PcEvents events;
    };
    // Errors: memory cannot be had; the kernel cannot be loaded.
    static Result<std::unique_ptr<PcMachine>> create(PcConfig config, Needs needs);
    ~PcMachine();

    dev::Uart16550* serial(unsigned n) { return serial_[n] ? &*serial_[n] : nullptr; }

    void start();
    // Returns once every vCPU is out of guest code and virtual time stands still.
    void stop();
    bool running() const { return running_; }
    // Goes on with another engine from where it stands: CPUs, timers and pending interrupts included. The former engine
    // is no longer used afterwards; `next` outlives the machine. It must have the CPU model's features. Errors: `next`
    // cannot make the CPUs; then everything is as before.
    Result<void> change_engine(Engine& next);
    // Brings everything to its reset state and loads the kernel anew; the machine goes on running if it was.
    Result<void> reset();
    void press_power_button();
    void inject_nmi();

    unsigned cpu_count() const { return unsigned(cpus_.size()); }
    // The state of a CPU; stops the machine for the moment of the look.
    x86::State cpu_state(unsigned n);
    // Guest-physical address behind a linear one of CPU `n`, by its page tables, without side effects.
    std::optional<GuestPhys> translate(unsigned n, std::uint64_t linear);
    Vcpu& vcpu(unsigned n) { return *cpus_[n].vcpu; }
    // Vcpu::translation_text of CPU `n`; stops the machine for the moment of the look.
    Result<std::string> translation_text(unsigned n, unsigned hottest);
    int cpu_thread_id(unsigned n) const { return cpus_[n].thread->thread_id(); }
    AddressSpace& memory() { return memory_; }
    AddressSpace& io() { return io_; }
    dev::PciBus& pci() { return *pci_; }
    VirtualClock& clock() { return clock_; }
    dev::KeySink& keyboard() { return keyboard_; }
    // Remarks of the loader worth telling once.
    std::vector<std::string> const& notes() const;

private:
    // One interrupt: the 8259 input and the I/O APIC pin it is soldered to, or the same of the engine's controllers.
    struct IsaIrq final : dev::IrqLine {
        dev::IrqLine* pic = nullptr;
        dev::IrqLine* io_apic = nullptr;
        KernelControllers* kernel = nullptr;
        unsigned gsi = 0;
        void set(bool level) override {
            if (kernel && kernel->drive(gsi, level)) return;
            if (pic) pic->set(level);
            if (io_apic) io_apic->set(level);
        }
    };
    // A line that calls back on its rising edge.
    struct Trigger final : dev::IrqLine {
        std::function<void()> action;
        void set(bool level) override {
            if (level && action) action();
        }
    };
    // One of the two wires that together hold A20 up.
    struct A20Source final : dev::IrqLine {
        PcMachine* machine = nullptr;
        bool level = false;
        void set(bool on) override {
            level = on;
            if (machine) machine->update_a20(); // null while the devices are being made
        }
    };
    struct Power final : dev::PowerControl {
        PcMachine* machine = nullptr;
        void power_off() override;
    };
    struct HostWallClock final : Clock {
        Nanoseconds now() const override { return host_realtime(); }
    };
    struct HostMonotonicClock final : Clock {
        Nanoseconds now() const override { return host_monotonic(); }
    };
    Clock const& rtc_clock() const;
    struct Cpu {
        std::unique_ptr<PcCpuBus> bus;
        std::unique_ptr<dev::LocalApic> apic;
        std::unique_ptr<Vcpu> vcpu;
        std::unique_ptr<VcpuThread> thread;
    };

    PcMachine(PcConfig config, Needs needs, std::unique_ptr<RamBlock> ram);
    void map_ram();
    void map_ports();
    // The CPUs' states, as they stand, to the CPUs of another engine.
    Result<void> move_states(std::span<std::unique_ptr<Vcpu>> to);
    // Asks for what the devices' writes can do without.
    Result<void> add_write_shortcuts();
    std::uint32_t apic_id(unsigned cpu) const;
    Result<void> make_cpus();
    Result<std::unique_ptr<Vcpu>> make_vcpu(Engine& engine, unsigned n);
    void start_thread(unsigned n);
    void connect_controllers();
    // An error ends the machine's run.
    void must(Result<void> const& done);
    // Tells the owner that the machine cannot go on. Any thread.
    void report_failure(std::string text);
    void engine_takes_over() VMM_REQUIRES(device_lock_);
    void engine_hands_back() VMM_REQUIRES(device_lock_);
    void make_timers_run();
    void update_a20();
    void bound_views(AddressSpace& space);
    static constexpr std::size_t max_retired_views = 1000;
    void request_reset();
    void reset_devices() VMM_REQUIRES(device_lock_);
    std::vector<dev::IrqLine*> io_apic_pins();
    void fill_cmos();
    Result<void> prepare_boot();
    void park_all();
    void resume_all();
    void port(char const* name, std::uint16_t base, std::uint64_t size, IoHandler& handler,
              AccessRules rules = {.max_impl = 1});

    PcConfig config_;
    Needs needs_;
    Mutex& device_lock_;
    VirtualClock clock_;
    TimerQueue timers_{clock_};
    PcTsc tsc_{clock_};
    GuestTime guest_time_{tsc_, clock_};
    WriteShortcuts shortcuts_{needs_.loop, device_lock_};
    AddressSpace memory_{"memory", ~std::uint64_t(0)};
    AddressSpace io_{"I/O", 0xffff};
    std::unique_ptr<RamBlock> ram_;
    SmmMemory smm_memory_;
    std::uint64_t below_4g_ = 0, above_4g_ = 0;
    std::optional<MappingId> a20_alias_;
    bool running_ = false, reset_pending_ = false, failed_ = false;
    bool reclaim_pending_ = false; // guarded by the device lock

    dev::ApicBus apic_bus_;
    dev::I8259Pair pic_;
    dev::IoApic io_apic_;
    Engine* engine_;                           // needs_.engine, or what change_engine() put in its place
    KernelControllers* kernel_irqs_ = nullptr; // the engine's, or null
    std::array<IsaIrq, 16> isa_irqs_;
    std::array<IsaIrq, dev::IoApic::pins> pins_; // the I/O APIC's alone
    Trigger reset_line_, smi_line_;
    A20Source a20_port92_, a20_keyboard_;
    Power power_;

    HostWallClock wall_clock_;
    HostMonotonicClock monotonic_clock_;
    dev::Hpet hpet_;
    dev::I8254 pit_;
    dev::Mc146818 rtc_;
    dev::SpeakerGate speaker_gate_;
    dev::Ps2Keyboard keyboard_;
    dev::Ps2Mouse mouse_;
    dev::I8042 i8042_;
    dev::Port92 port92_;
    dev::PostPort post_;
    dev::AcpiPm acpi_pm_;
    std::array<std::optional<dev::Uart16550>, 4> serial_;
    std::optional<dev::DebugConsole> debugcon_;
    std::optional<dev::IsaDebugExit> debug_exit_;
    std::optional<dev::PcTestdev> testdev_;

    std::optional<dev::Piix3> piix3_;
    std::optional<dev::PciBus> pci_;
    std::optional<dev::I440fx> i440fx_;
    std::optional<dev::Piix4Pm> piix4_pm_;
    std::optional<dev::PciConfigPorts> pci_ports_;

    std::vector<Cpu> cpus_;
};

} // namespace vmm
