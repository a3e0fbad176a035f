#include "vmm/machine/pc/pc_machine.h"

#include "firmware/acpi/acpi_tables.h"
#include "firmware/smbios/smbios_tables.h"

#include <malloc.h>
#include <sys/mman.h>

#include <algorithm>

namespace vmm {

namespace {

// QEMU's layout: RAM below 4 GiB ends at 3 GiB when there is more than 3.5 GiB, so that PCI gets its window.
constexpr std::uint64_t low_ram_limit = 3 * GiB + 512 * MiB, low_ram_split = 3 * GiB;
constexpr GuestPhys io_apic_base = 0xfec00000, hpet_base = 0xfed00000;
constexpr std::uint16_t pm_base = 0x600, smbus_base = 0x700;
constexpr std::uint16_t serial_ports[] = {0x3f8, 0x2f8, 0x3e8, 0x2e8};
constexpr unsigned serial_irqs[] = {4, 3, 4, 3};

x86::Segment segment(firmware::BootSegment const& s) {
    return {.base = s.base, .limit = s.limit, .attributes = s.attributes, .selector = s.selector};
}

// The boot processor's state for a kernel entered without firmware.
void apply_boot_entry(x86::State& s, firmware::BootEntry const& entry) {
    s.gpr = entry.gpr;
    s.rip = entry.rip;
    s.rflags = entry.rflags;
    s.cr0 = entry.cr0, s.cr3 = entry.cr3, s.cr4 = entry.cr4, s.efer = entry.efer;
    s.seg[x86::cs] = segment(entry.cs), s.seg[x86::ds] = segment(entry.ds), s.seg[x86::es] = segment(entry.es);
    s.seg[x86::fs] = segment(entry.fs), s.seg[x86::gs] = segment(entry.gs), s.seg[x86::ss] = segment(entry.ss);
    s.seg[x86::tr] = segment(entry.tr), s.seg[x86::ldtr] = segment(entry.ldt);
    s.gdtr = {entry.gdt.base, entry.gdt.limit};
    s.idtr = {entry.idt.base, entry.idt.limit};
}

// Memory types as PC firmware leaves them on every CPU (SDM vol. 3 11.11): write-back but for the legacy video window
// and the space of devices below 4 GiB, which starts at `hole`; the ROM area is write-protected.
void apply_boot_memory_types(x86::Mtrr& mtrr, std::uint64_t hole, unsigned physical_bits) {
    constexpr std::uint64_t uncached = 0, write_protected = 5, write_back = 6, eight = 0x0101010101010101;
    constexpr std::uint64_t enabled = 1u << 11, fixed_enabled = 1u << 10;
    mtrr.fixed.fill(eight * write_protected);
    mtrr.fixed[0] = mtrr.fixed[1] = eight * write_back; // 64 KiB each to 0x80000, 16 KiB to 0xa0000
    mtrr.fixed[2] = eight * uncached;                   // 0xa0000 to 0xc0000
    mtrr.variable[0] = hole | uncached;
    mtrr.variable[1] = (((std::uint64_t(1) << physical_bits) - 1) & ~(4 * GiB - hole - 1)) | enabled;
    mtrr.def_type = enabled | fixed_enabled | write_back;
}

} // namespace

Result<std::unique_ptr<PcMachine>> PcMachine::create(PcConfig config, Needs needs) {
    auto ram = TRY(RamBlock::create("pc.ram", config.ram_bytes));
    if (config.ram_prealloc && madvise(ram->host(), ram->size(), MADV_POPULATE_WRITE) != 0)
        return error_from_errno(errno, "cannot preallocate guest memory 'pc.ram' of {} MiB", ram->size() / MiB);
    if (!config.ram_in_core_dumps) madvise(ram->host(), ram->size(), MADV_DONTDUMP);
    std::unique_ptr<PcMachine> machine(new PcMachine(std::move(config), std::move(needs), std::move(ram)));
    TRY(machine->make_cpus());
    TRY(machine->add_write_shortcuts());
    TRY(machine->reset());
    return machine;
}

PcMachine::PcMachine(PcConfig config, Needs needs, std::unique_ptr<RamBlock> ram)
    : config_(std::move(config)), needs_(std::move(needs)), device_lock_(needs_.device_lock), ram_(std::move(ram)),
      smm_memory_(memory_, *ram_, [this] { return i440fx_ && i440fx_->smram_enabled(); }), apic_bus_(needs_.log),
      pic_({.intr = apic_bus_.lint(0), .log = needs_.log}), io_apic_({.bus = apic_bus_, .log = needs_.log}, {}),
      engine_(&needs_.engine), hpet_({.timers = timers_,
                                      .irq0 = isa_irqs_[0],
                                      .irq8 = isa_irqs_[8],
                                      .pins = io_apic_pins(),
                                      .msi = &apic_bus_,
                                      .on_legacy = [this](bool replaced) { pit_.watch_out0(!replaced); }},
                                     {}),
      pit_({.out0 = hpet_.pit_input(), .timers = timers_}),
      rtc_({.irq = hpet_.rtc_input(), .timers = timers_, .wall = rtc_clock()},
           {.base_offset = config_.rtc_start - rtc_clock().now(), .slew = config_.rtc_slew}),
      speaker_gate_(pit_), i8042_({.keyboard_irq = isa_irqs_[1],
                                   .auxiliary_irq = isa_irqs_[12],
                                   .a20 = a20_keyboard_,
                                   .reset = reset_line_,
                                   .keyboard = keyboard_,
                                   .auxiliary = mouse_,
                                   .log = needs_.log}),
      port92_({.a20 = a20_port92_, .reset = reset_line_}),
      acpi_pm_({.sci = isa_irqs_[9], .timers = timers_, .power = power_, .log = needs_.log, .smi = &smi_line_}) {
    clock_.stop();
    a20_port92_.machine = a20_keyboard_.machine = power_.machine = this;
    reset_line_.action = [this] { request_reset(); };
    for (unsigned irq = 0; irq < isa_irqs_.size(); ++irq) {
        isa_irqs_[irq].pic = &pic_.input(irq);
        isa_irqs_[irq].io_apic = irq == 2 ? nullptr : &io_apic_.input(irq == 0 ? 2 : irq); // the MADT's override
        isa_irqs_[irq].gsi = irq;
    }
    for (unsigned pin = 0; pin < pins_.size(); ++pin) pins_[pin].io_apic = &io_apic_.input(pin), pins_[pin].gsi = pin;
    apic_bus_.attach(io_apic_);
    map_ram();

    dev::Piix3::Needs piix3{.reset = &reset_line_};
    for (unsigned irq = 0; irq < isa_irqs_.size(); ++irq) piix3.irqs[irq] = &isa_irqs_[irq];
    piix3_.emplace(piix3);
    pci_.emplace(dev::PciBus::Needs{.memory = memory_, .io = io_, .intx = *piix3_});
    i440fx_.emplace(dev::I440fx::Needs{.memory = memory_, .ram = *ram_, .on_smram_enable = [this] {
                                           smm_memory_.refresh();
                                           bound_views(smm_memory_.space());
                                       }});
    piix4_pm_.emplace(dev::Piix4Pm::Needs{.io = io_, .acpi = acpi_pm_});
    pci_->attach({0, 0}, i440fx_->function()).value();
    pci_->attach({1, 0}, piix3_->function()).value();
    pci_->attach({1, 3}, piix4_pm_->function()).value();
    pci_ports_.emplace(dev::PciConfigPorts::Needs{.bus = *pci_, .reset_control = piix3_->reset_control()});
    // As on QEMU's board the boot processor alone gets the chip set's SMIs.
    smi_line_.action = [this] {
        if (piix4_pm_->apm_raises_smi()) cpus_[0].bus->smi();
    };
    map_ports();
    fill_cmos();
    make_timers_run();
}

Clock const& PcMachine::rtc_clock() const {
    switch (config_.rtc_clock) {
    case PcConfig::RtcClock::host: return wall_clock_;
    case PcConfig::RtcClock::monotonic: return monotonic_clock_;
    case PcConfig::RtcClock::guest: return clock_;
    }
    VMM_UNREACHABLE();
}

PcMachine::~PcMachine() {
    park_all();
    needs_.loop.set_deadline_source({});
    cpus_.clear();
    engine_->release_memory();
}

void PcMachine::map_ram() {
    below_4g_ = ram_->size() > low_ram_limit ? low_ram_split : ram_->size();
    above_4g_ = ram_->size() - below_4g_;
    memory_.map({.name = "ram-below-4g",
                 .range = AddressRange::of(0, below_4g_),
                 .backing = Backing::of_ram(*ram_),
                 .priority = dev::pci_priority::ram});
    if (above_4g_)
        memory_.map({.name = "ram-above-4g",
                     .range = AddressRange::of(4 * GiB, above_4g_),
                     .backing = Backing::of_ram(*ram_, below_4g_),
                     .priority = dev::pci_priority::ram});
    if (config_.hpet)
        memory_.map({.name = "hpet",
                     .range = AddressRange::of(hpet_base, 0x400),
                     .backing = Backing::of_io(hpet_, {.min_guest = 4, .min_impl = 4, .max_impl = 8}),
                     .priority = dev::pci_priority::legacy});
    memory_.map({.name = "ioapic",
                 .range = AddressRange::of(io_apic_base, 0x1000),
                 .backing = Backing::of_io(io_apic_, {.min_impl = 4, .max_impl = 4}),
                 .priority = dev::pci_priority::legacy});
}

std::vector<dev::IrqLine*> PcMachine::io_apic_pins() {
    std::vector<dev::IrqLine*> pins;
    for (IsaIrq& pin : pins_) pins.push_back(&pin);
    return pins;
}

// The memory sizes and equipment a BIOS and old boot loaders read (PC/AT CMOS map).
void PcMachine::fill_cmos() {
    auto word = [&](std::uint8_t index, std::uint64_t value) {
        rtc_.set_cmos(index, std::uint8_t(value));
        rtc_.set_cmos(std::uint8_t(index + 1), std::uint8_t(value >> 8));
    };
    word(0x15, 640);
    std::uint64_t extended_kib = below_4g_ > MiB ? std::min<std::uint64_t>((below_4g_ - MiB) / KiB, 0xffff) : 0;
    word(0x17, extended_kib);
    word(0x30, extended_kib);
    word(0x34, below_4g_ > 16 * MiB ? std::min<std::uint64_t>((below_4g_ - 16 * MiB) / (64 * KiB), 0xffff) : 0);
    word(0x5b, above_4g_ / (64 * KiB));
    rtc_.set_cmos(0x5d, std::uint8_t(above_4g_ / (64 * KiB) >> 16));
    rtc_.set_cmos(0x5f, std::uint8_t(config_.cpus - 1));
    rtc_.set_cmos(0x14, 0x06); // FPU, PS/2 mouse
}

void PcMachine::port(char const* name, std::uint16_t base, std::uint64_t size, IoHandler& handler, AccessRules rules) {
    io_.map({.name = name, .range = AddressRange::of(base, size), .backing = Backing::of_io(handler, rules)});
}

void PcMachine::map_ports() {
    AddressSpace::Batch batch(io_);
    port("pic", 0x20, 2, pic_.master_ports());
    port("pic", 0xa0, 2, pic_.slave_ports());
    port("elcr", 0x4d0, 2, pic_.elcr_ports());
    port("pit", 0x40, 4, pit_);
    port("rtc", 0x70, 4, rtc_);
    port("pcspk", 0x61, 1, speaker_gate_);
    port("i8042-data", dev::I8042::data_port, 1, i8042_.data(), dev::I8042::access_rules);
    port("i8042-cmd", dev::I8042::command_port, 1, i8042_.command(), dev::I8042::access_rules);
    port("port92", 0x92, 1, port92_, dev::Port92::access_rules);
    port("post", dev::PostPort::default_port, 1, post_, dev::PostPort::access_rules);
    port("apm", 0xb2, dev::AcpiPm::smi_size, acpi_pm_.smi(), dev::AcpiPm::smi_rules);
    port("pci-conf", dev::PciConfigPorts::port, dev::PciConfigPorts::region_size, *pci_ports_,
         dev::PciConfigPorts::access_rules);
    for (unsigned n = 0; n < 4; ++n) {
        if (!config_.serial[n]) continue;
        serial_[n].emplace(
            dev::Uart16550::Needs{.irq = isa_irqs_[serial_irqs[n]], .timers = timers_, .output = *config_.serial[n]});
        port("serial", serial_ports[n], dev::Uart16550::region_size, *serial_[n], dev::Uart16550::access_rules);
    }
    if (config_.debugcon) {
        debugcon_.emplace(*config_.debugcon->sink);
        port("debugcon", config_.debugcon->port, 1, *debugcon_, dev::DebugConsole::access_rules);
    }
    if (config_.debug_exit) {
        debug_exit_.emplace([this](int status) {
            for (Cpu& cpu : cpus_) cpu.thread->ask_to_park();
            needs_.loop.post([this, status] { needs_.events.on_debug_exit(status); });
        });
        port("debug-exit", config_.debug_exit->port, config_.debug_exit->size, *debug_exit_,
             {.max_guest = 4, .max_impl = 4, .unaligned = true});
    }
    if (config_.testdev) {
        std::vector<dev::IrqLine*> lines;
        for (unsigned pin = 0; pin < dev::IoApic::pins; ++pin)
            lines.push_back(pin < 16 ? &isa_irqs_[pin] : &pins_[pin]);
        testdev_.emplace(lines);
        using T = dev::PcTestdev;
        port("testdev", T::latch_port, 4, testdev_->latch(), T::latch_rules);
        port("testdev-flush", T::flush_port, 4, testdev_->flush(), T::flush_rules);
        port("testdev-byte", T::byte_port, 1, testdev_->byte(), T::byte_rules);
        port("testdev-irq", T::irq_port, T::irq_lines, testdev_->irqs(), T::irq_rules);
        memory_.map({.name = "testdev",
                     .range = AddressRange::of(T::scratch_address, T::scratch_size),
                     .backing = Backing::of_io(testdev_->scratch(), T::scratch_rules),
                     .priority = dev::pci_priority::legacy});
    }
}

// The delay port's writes and the test device's memory may come late; the test device's flush port is a doorbell.
Result<void> PcMachine::add_write_shortcuts() {
    shortcuts_.add({.range = AddressRange::of(dev::PostPort::default_port, dev::PostPort::region_size), .port = true});
    if (testdev_) {
        using T = dev::PcTestdev;
        shortcuts_.add({.range = AddressRange::of(T::scratch_address, T::scratch_size)});
        TRY(shortcuts_.add({.address = T::flush_port, .size = T::flush_rules.max_guest, .port = true},
                           [this](std::uint64_t times) { testdev_->flushed(times); }));
    }
    return shortcuts_.use(engine_->write_shortcuts());
}

std::uint32_t PcMachine::apic_id(unsigned cpu) const {
    return x86::topology_apic_id(cpu, config_.cores, config_.threads);
}

Result<void> PcMachine::make_cpus() {
    constexpr std::uint32_t last_id = 254; // 255 is everybody
    if (std::uint32_t last = apic_id(config_.cpus - 1); last > last_id)
        return error(
            "-smp: the last of {} CPUs in sockets of {} cores with {} threads gets APIC id {}, and the board's "
            "ids end at {}; choose cores and threads that are powers of two",
            config_.cpus, config_.cores, config_.threads, last, last_id);
    for (unsigned n = 0; n < config_.cpus; ++n) {
        Cpu cpu;
        cpu.bus = std::make_unique<PcCpuBus>(PcCpuBus::Needs{.device_lock = device_lock_,
                                                             .memory = memory_,
                                                             .smm_memory = smm_memory_,
                                                             .io = io_,
                                                             .tsc = tsc_,
                                                             .ferr = isa_irqs_[13],
                                                             .log = needs_.log});
        cpu.apic = std::make_unique<dev::LocalApic>(
            dev::LocalApic::Needs{
                .cpu = *cpu.bus, .bus = apic_bus_, .pic = pic_, .timers = timers_, .tsc = tsc_, .log = needs_.log},
            dev::LocalApic::Config{.id = apic_id(n),
                                   .bootstrap = n == 0,
                                   .x2apic = config_.cpu_model.has(x86::Feature::x2apic),
                                   .tsc_deadline = config_.cpu_model.has(x86::Feature::tsc_deadline),
                                   .physical_address_bits = config_.cpu_model.physical_bits});
        cpu.bus->connect(*cpu.apic);
        apic_bus_.attach(*cpu.apic);
        cpus_.push_back(std::move(cpu));
        cpus_[n].vcpu = TRY(make_vcpu(*engine_, n));
        start_thread(n);
    }
    if (std::uint64_t hz = engine_->tsc_hz()) tsc_.set_hz(hz);
    connect_controllers();
    return {};
}

Result<std::unique_ptr<Vcpu>> PcMachine::make_vcpu(Engine& engine, unsigned n) {
    return engine.make_vcpu(
        *cpus_[n].bus, config_.cpu_model,
        {.index = n, .apic_id = apic_id(n), .cores = config_.cores, .threads = config_.threads, .bsp = n == 0});
}

void PcMachine::start_thread(unsigned n) {
    Cpu& cpu = cpus_[n];
    cpu.thread = std::make_unique<VcpuThread>(
        fmt::format("CPU {}/{}", n, cpu.vcpu->engine_name()), *cpu.vcpu,
        VcpuThread::Events{.on_shutdown = [this] { request_reset(); },
                           .on_internal_error = [this](std::string const& text) { report_failure(text); }});
    cpu.bus->connect(*cpu.vcpu, *cpu.thread);
}

// Wires the interrupt controllers of the engine, where it has some.
void PcMachine::connect_controllers() {
    kernel_irqs_ = engine_->controllers();
    KernelControllers* pins = kernel_irqs_ && kernel_irqs_->has_pins() ? kernel_irqs_ : nullptr;
    for (IsaIrq& irq : isa_irqs_) irq.kernel = pins;
    for (IsaIrq& pin : pins_) pin.kernel = pins;
    if (!kernel_irqs_) return;
    KernelControllers::Board board{.device_lock = device_lock_,
                                   .bus = apic_bus_,
                                   .pic = pic_,
                                   .io_apic = io_apic_,
                                   .apics = {},
                                   .timers = timers_,
                                   .tsc = tsc_,
                                   .io_apic_base = io_apic_base};
    for (Cpu& cpu : cpus_) board.apics.push_back(cpu.apic.get());
    kernel_irqs_->set_board(std::move(board));
}

Result<void> PcMachine::move_states(std::span<std::unique_ptr<Vcpu>> to) {
    for (unsigned n = 0; n < cpus_.size(); ++n) {
        to[n]->set_state(cpus_[n].vcpu->state());
        auto own = TRY(cpus_[n].vcpu->own_state());
        TRY(to[n]->set_own_state(own));
    }
    return {};
}

Result<void> PcMachine::change_engine(Engine& next) {
    bool was_running = running_;
    stop();
    std::vector<std::unique_ptr<Vcpu>> fresh;
    for (unsigned n = 0; n < cpus_.size(); ++n) {
        auto vcpu = make_vcpu(next, n);
        if (!vcpu) {
            fresh.clear();
            next.release_memory();
            if (was_running) start();
            return vcpu.error();
        }
        fresh.push_back(std::move(*vcpu));
    }
    auto moved = move_states(fresh);
    if (moved) moved = shortcuts_.use(next.write_shortcuts());
    if (!moved) {
        fresh.clear();
        next.release_memory();
        if (was_running) start();
        return moved;
    }
    if (std::uint64_t hz = next.tsc_hz(); hz && hz != tsc_.tsc_hz()) {
        needs_.log.warn("this host's KVM cannot scale the time stamp counter: the guest's goes on at {} MHz, not {}",
                        hz / 1'000'000, tsc_.tsc_hz() / 1'000'000);
        tsc_.set_hz(hz);
    }
    for (unsigned n = 0; n < cpus_.size(); ++n) {
        cpus_[n].thread.reset();
        cpus_[n].vcpu = std::move(fresh[n]);
        start_thread(n);
    }
    engine_->release_memory();
    engine_ = &next;
    connect_controllers();
    if (was_running) start();
    return {};
}

void PcMachine::must(Result<void> const& done) {
    if (!done) report_failure(done.error().message());
}

// Once: whatever is tried with an engine that cannot go on fails too.
void PcMachine::report_failure(std::string text) {
    needs_.loop.post([this, text = std::move(text)] {
        if (!std::exchange(failed_, true)) needs_.events.on_internal_error(text);
    });
}

// Every vCPU is out of guest code, device lock held, for both.
void PcMachine::engine_takes_over() {
    must(engine_->start_time(guest_time_));
    if (kernel_irqs_) must(kernel_irqs_->take_over());
}

void PcMachine::engine_hands_back() {
    must(engine_->stop_time(guest_time_));
    if (kernel_irqs_) must(kernel_irqs_->hand_back());
}

void PcMachine::make_timers_run() {
    timers_.set_on_earlier([this] { needs_.loop.wake(); });
    needs_.loop.set_deadline_source({.next =
                                         [this] {
                                             MutexLock lock(device_lock_);
                                             Nanoseconds deadline = timers_.next_deadline();
                                             if (deadline == TimerQueue::never || !clock_.running())
                                                 return TimerQueue::never;
                                             return host_monotonic() +
                                                    std::max<Nanoseconds>(0, deadline - clock_.now());
                                         },
                                     .run =
                                         [this] {
                                             MutexLock lock(device_lock_);
                                             timers_.run_expired();
                                         }});
}

// Frees old views of the address map before a guest that changes it without end fills our memory with them.
void PcMachine::bound_views(AddressSpace& space) {
    if (space.retired_views() < max_retired_views || reclaim_pending_) return;
    reclaim_pending_ = true;
    needs_.loop.post([this] {
        park_all();
        {
            MutexLock lock(device_lock_);
            memory_.reclaim();
            smm_memory_.space().reclaim();
            io_.reclaim();
            reclaim_pending_ = false;
        }
        if (running_) resume_all();
    });
}

// The A20 gate: with the line low, odd megabytes show the even ones below. Only the first matters to software that uses
// it.
void PcMachine::update_a20() {
    bool on = a20_port92_.level || a20_keyboard_.level;
    if (on == !a20_alias_) return;
    if (on) {
        memory_.unmap(*a20_alias_);
        a20_alias_.reset();
    } else {
        std::uint64_t size = std::min<std::uint64_t>(MiB, below_4g_ > MiB ? below_4g_ - MiB : 0);
        if (size)
            a20_alias_ = memory_.map({.name = "a20-wrap",
                                      .range = AddressRange::of(MiB, size),
                                      .backing = Backing::of_ram(*ram_),
                                      .priority = dev::pci_priority::legacy});
    }
}

void PcMachine::Power::power_off() {
    for (Cpu& cpu : machine->cpus_) cpu.thread->ask_to_park();
    machine->needs_.loop.post([m = machine] { m->needs_.events.on_power_off(); });
}

// From a vCPU's or the loop's thread, with or without the device lock: the work is done on the loop.
void PcMachine::request_reset() {
    for (Cpu& cpu : cpus_) cpu.thread->ask_to_park();
    needs_.loop.post([this] {
        if (std::exchange(reset_pending_, true)) return;
        needs_.loop.post([this] { reset_pending_ = false; });
        needs_.events.on_reset_request();
    });
}

// The last CPU has no thread when it could not be made, which ends the machine.
void PcMachine::park_all() {
    for (Cpu& cpu : cpus_)
        if (cpu.thread) cpu.thread->ask_to_park();
    for (Cpu& cpu : cpus_)
        if (cpu.thread) cpu.thread->wait_until_parked();
}

void PcMachine::resume_all() {
    for (Cpu& cpu : cpus_) cpu.thread->resume();
}

void PcMachine::start() {
    if (running_) return;
    running_ = true;
    {
        MutexLock lock(device_lock_);
        clock_.start();
        engine_takes_over();
    }
    needs_.loop.wake();
    resume_all();
}

void PcMachine::stop() {
    running_ = false;
    park_all();
    if (kernel_irqs_) must(kernel_irqs_->settle());
    shortcuts_.settle();
    MutexLock lock(device_lock_);
    engine_hands_back();
    clock_.stop();
}

void PcMachine::reset_devices() {
    for (Cpu& cpu : cpus_) cpu.apic->reset();
    pic_.reset();
    io_apic_.reset();
    hpet_.reset();
    pit_.reset();
    rtc_.reset();
    speaker_gate_.reset();
    keyboard_.reset();
    mouse_.reset();
    i8042_.reset();
    port92_.reset();
    post_.reset();
    acpi_pm_.reset();
    for (auto& serial : serial_)
        if (serial) serial->reset();
    if (testdev_) testdev_->reset();
    i440fx_->reset();
    piix3_->reset();
    piix4_pm_->reset();
    pci_ports_->reset();
}

Result<void> PcMachine::reset() {
    park_all();
    failed_ = false;
    {
        MutexLock lock(device_lock_);
        engine_hands_back();
        reset_devices();
        for (unsigned n = 0; n < cpus_.size(); ++n) cpus_[n].vcpu->reset(n == 0);
        if (config_.kernel) TRY(prepare_boot());
        if (running_) engine_takes_over();
    }
    malloc_trim(0); // the loader's buffers, which are as large as its files
    if (running_) resume_all();
    return {};
}

// What firmware would have done before it starts an operating system, then the kernel itself.
Result<void> PcMachine::prepare_boot() {
    constexpr std::uint8_t port92_a20 = 2;
    port92_.write(0, 1, port92_a20);
    i440fx_->enable_shadow_ram();
    piix3_->route({10, 10, 11, 11});
    pic_.set_up_as_firmware(1u << 10 | 1u << 11); // PCI's
    pit_.set_up_as_firmware();
    piix4_pm_->assign(pm_base, smbus_base);
    acpi_pm_.enter_acpi_mode();
    i8042_.set_up_as_firmware();
    for (Cpu& cpu : cpus_)
        if (cpu.apic->bootstrap()) cpu.apic->set_up_virtual_wire();
    firmware::AcpiConfig acpi{
        .cpus = unsigned(cpus_.size()), .com = {}, .hpet = config_.hpet, .vga = false, .pm_base = pm_base};
    for (unsigned n = 0; n < cpus_.size(); ++n) acpi.apic_ids.push_back(std::uint8_t(apic_id(n)));
    firmware::BootPlatform platform;
    platform.ram_below_4g = below_4g_;
    platform.ram_above_4g = above_4g_;
    platform.vga_text = false;
    for (unsigned n = 0; n < 4; ++n) {
        acpi.com[n] = serial_[n].has_value();
        platform.com_ports[n] = serial_[n] ? serial_ports[n] : 0;
    }
    GuestPhys end_of_ram = below_4g_;
    if (config_.acpi) {
        firmware::AcpiPlacement tables = TRY(firmware::place_acpi_tables(memory_, acpi, below_4g_));
        platform.rsdp = tables.rsdp;
        platform.acpi_tables.push_back(tables.range);
        end_of_ram = tables.range.first;
    }
    firmware::SmbiosConfig smbios_config{.sockets = config_.sockets,
                                         .cores = config_.cores,
                                         .threads = config_.threads,
                                         .ram_below_4g = below_4g_,
                                         .ram_above_4g = above_4g_};
    smbios_config.cpu_name = config_.cpu_model.brand;
    smbios_config.uuid = config_.uuid;
    auto smbios = TRY(firmware::place_smbios_tables(memory_, smbios_config, end_of_ram));
    if (smbios) platform.acpi_tables.push_back(*smbios);
    firmware::BootEntry entry = TRY(config_.kernel->load(memory_, platform));
    std::uint64_t hole = below_4g_ > low_ram_split ? low_ram_limit : low_ram_split;
    for (Cpu& cpu : cpus_) {
        x86::State state = cpu.vcpu->state();
        apply_boot_memory_types(state.mtrr, hole, config_.cpu_model.physical_bits);
        if (&cpu == &cpus_[0]) apply_boot_entry(state, entry);
        cpu.vcpu->set_state(state);
    }
    return {};
}

void PcMachine::press_power_button() {
    MutexLock lock(device_lock_);
    acpi_pm_.press_power_button();
}

void PcMachine::inject_nmi() {
    MutexLock lock(device_lock_);
    for (Cpu& cpu : cpus_) cpu.bus->nmi();
}

x86::State PcMachine::cpu_state(unsigned n) {
    park_all();
    x86::State state = cpus_[n].vcpu->state();
    if (running_) resume_all();
    return state;
}

Result<std::string> PcMachine::translation_text(unsigned n, unsigned hottest) {
    park_all();
    Result<std::string> text = cpus_[n].vcpu->translation_text(hottest);
    if (running_) resume_all();
    return text;
}

std::optional<GuestPhys> PcMachine::translate(unsigned n, std::uint64_t linear) {
    park_all();
    std::optional<GuestPhys> physical = cpus_[n].vcpu->translate(linear);
    if (running_) resume_all();
    return physical;
}

std::vector<std::string> const& PcMachine::notes() const {
    static std::vector<std::string> const none;
    return config_.kernel ? config_.kernel->notes() : none;
}

} // namespace vmm
