#include "vmm/kvm/kvm_vcpu.h"

#include "vmm/kvm/kvm_abi.h"
#include "vmm/kvm/kvm_cpuid.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::kvm {

namespace {

// kvm_run::immediate_exit is written by other threads while the kernel reads it.
void store_immediate_exit(kvm_run* run, std::uint8_t value) {
    __atomic_store_n(&run->immediate_exit, value, __ATOMIC_SEQ_CST);
}

// Moves `entries` by KVM_GET_MSRS or KVM_SET_MSRS; those refused are reported one by one and left out.
template <class Refused>
int transfer_msrs(KvmApi& api, int fd, unsigned long request, std::vector<kvm_msr_entry>& entries, Refused refused) {
    for (std::size_t done = 0; done < entries.size();) {
        abi::MsrBatch batch(std::span<kvm_msr_entry const>(entries).subspan(done));
        int n = api.ioctl(fd, request, batch.head());
        if (n < 0 && n != -EINVAL && n != -EPERM) return n;
        std::size_t moved = std::min(std::size_t(std::max(n, 0)), entries.size() - done);
        std::copy_n(batch.entries(), moved, entries.begin() + std::ptrdiff_t(done));
        done += moved;
        if (done == entries.size()) break;
        refused(entries[done].index);
        entries.erase(entries.begin() + std::ptrdiff_t(done));
    }
    return 0;
}

kvm_msr_entry msr_entry(std::uint32_t index, std::uint64_t value) {
    kvm_msr_entry e{};
    e.index = index, e.data = value;
    return e;
}

} // namespace

Result<std::unique_ptr<KvmVcpu>> KvmVcpu::create(Config config) {
    std::unique_ptr<KvmVcpu> vcpu(new KvmVcpu(std::move(config)));
    TRY(vcpu->open());
    TRY(vcpu->set_up_tsc());
    TRY(vcpu->set_up_cpuid());
    TRY(vcpu->set_up_machine_check());
    TRY(vcpu->find_msrs());
    vcpu->machine_.add_gate_user(*vcpu);
    vcpu->reset(vcpu->config_.bsp);
    if (!vcpu->error_.empty()) return Error(vcpu->error_);
    return vcpu;
}

KvmVcpu::~KvmVcpu() {
    machine_.remove_gate_user(*this);
    if (dirty_ring_) machine_.api().unmap(dirty_ring_, machine_.options().dirty_ring_entries * sizeof(kvm_dirty_gfn));
    if (run_) machine_.api().unmap(run_, machine_.run_size());
}

Result<void> KvmVcpu::open() {
    std::uint32_t id = config_.cpuid.apic_id;
    if (id >= machine_.caps().max_vcpus)
        return error("this host's KVM runs at most {} CPUs in one guest", machine_.caps().max_vcpus);
    int fd = machine_.api().ioctl(machine_.vm_fd(), KVM_CREATE_VCPU, std::uintptr_t(id));
    if (fd < 0) return kvm_error("KVM_CREATE_VCPU", fd);
    vcpu_.reset(fd);
    int failure = 0;
    run_ = static_cast<kvm_run*>(machine_.api().map(fd, machine_.run_size(), 0, failure));
    if (!run_) return kvm_error("mapping the vCPU", -failure);
    if (unsigned entries = machine_.options().dirty_ring_entries) {
        dirty_ring_ = static_cast<kvm_dirty_gfn*>(machine_.api().map(
            fd, entries * sizeof(kvm_dirty_gfn), std::size_t(KVM_DIRTY_LOG_PAGE_OFFSET) * page_size, failure));
        if (!dirty_ring_) return kvm_error("mapping the dirty ring", -failure);
    }
    xsave_layout_ = XsaveLayout::of_host();
    kernel_apic_ = machine_.options().irqchip != KernelIrqchip::off;
    injects_ = machine_.options().irqchip != KernelIrqchip::on;
    return {};
}

Result<void> KvmVcpu::set_up_cpuid() {
    x86::CpuidContext context = config_.cpuid;
    context.tsc_hz = tsc_hz_;
    auto list = make_cpuid(config_.model, context, machine_.supported_cpuid(), machine_.options().irqchip);
    abi::CpuidList table{std::span<kvm_cpuid_entry2 const>(list)};
    if (int result = call(abi::set_cpuid2, table.head()); result < 0) return kvm_error("KVM_SET_CPUID2", result);
    return {};
}

// The guest's TSC ticks as the board's CpuBus says, where the host can scale it; elsewhere at the host's rate, which
// CPUID then tells the guest.
Result<void> KvmVcpu::set_up_tsc() {
    tsc_hz_ = bus_.tsc_hz();
    if (machine_.caps().tsc_control) {
        int result = machine_.api().ioctl(vcpu_.get(), KVM_SET_TSC_KHZ, std::uintptr_t(tsc_hz_ / 1000));
        if (result < 0) return kvm_error("KVM_SET_TSC_KHZ", result);
    } else if (machine_.caps().tsc_rate) {
        int khz = machine_.api().ioctl(vcpu_.get(), KVM_GET_TSC_KHZ, std::uintptr_t(0));
        if (khz <= 0) return kvm_error("KVM_GET_TSC_KHZ", khz < 0 ? khz : -EINVAL);
        tsc_hz_ = std::uint64_t(khz) * 1000;
    }
    return {};
}

Result<void> KvmVcpu::set_up_machine_check() {
    constexpr unsigned banks = x86::State().mc_banks.size() / 4;
    constexpr std::uint64_t control_present = 1u << 8;
    if (machine_.caps().mce_banks < banks || !config_.model.has(x86::Feature::mca)) return {};
    std::uint64_t mcg_cap = banks | control_present;
    if (int result = call(KVM_X86_SETUP_MCE, &mcg_cap); result < 0) return kvm_error("KVM_X86_SETUP_MCE", result);
    return {};
}

Result<void> KvmVcpu::find_msrs() {
    std::vector<kvm_msr_entry> entries;
    for (StateMsr const& row : state_msrs())
        if (machine_.saves_msr(row.index)) entries.push_back(msr_entry(row.index, 0));
    x86::State scratch;
    std::array<ArrayMsr, max_array_msrs> arrays;
    unsigned banks = config_.model.has(x86::Feature::mca) ? unsigned(scratch.mc_banks.size() / 4) : 0;
    std::size_t n = array_msrs(scratch, banks, arrays);
    for (std::size_t i = 0; i < n; ++i) entries.push_back(msr_entry(arrays[i].index, 0));
    auto refused = [&](std::uint32_t index) { machine_.note_refused_msr(index); };
    int result = transfer_msrs(machine_.api(), vcpu_.get(), abi::get_msrs, entries, refused);
    if (result < 0) return kvm_error("KVM_GET_MSRS", result);
    for (kvm_msr_entry const& e : entries) msrs_.push_back(e.index);
    return {};
}

// --- asking from outside ---

void KvmVcpu::kick() {
    // Whoever kicks has noted its reason already. The run loop clears immediate_exit before it looks for reasons, so
    // either it sees the reason, or KVM_RUN sees this flag, or the signal interrupts KVM_RUN.
    store_immediate_exit(run_, 1);
    if (in_guest_.load(std::memory_order_seq_cst)) machine_.api().kick(thread_id_.load(std::memory_order_relaxed));
}

void KvmVcpu::request_exit() {
    exit_asked_.store(true, std::memory_order_seq_cst);
    kick();
}

void KvmVcpu::signal(CpuSignal what, std::uint8_t vector) {
    if (what == CpuSignal::sipi) sipi_vector_.store(vector, std::memory_order_relaxed);
    signals_.fetch_or(1u << unsigned(what), std::memory_order_seq_cst);
    kick();
}

bool KvmVcpu::wakes_from_halt() const { return if_flag_ && !holds_irqs_ && !kernel_apic_ && bus_.interrupt_pending(); }

bool KvmVcpu::has_work() const {
    if (exit_asked_.load(std::memory_order_seq_cst) || machine_.broken()) return true;
    constexpr std::uint32_t startup = 1u << unsigned(CpuSignal::init) | 1u << unsigned(CpuSignal::sipi);
    std::uint32_t waiting = signals_.load(std::memory_order_seq_cst);
    if (kernel_apic_ && activity_ != x86::Activity::shutdown) return true; // KVM_RUN waits
    switch (activity_) {
    case x86::Activity::running: return true;
    case x86::Activity::halted: return waiting || wakes_from_halt();
    case x86::Activity::wait_for_sipi: return waiting & startup;
    case x86::Activity::shutdown: return waiting & (1u << unsigned(CpuSignal::init));
    }
    return true;
}

// --- the run loop ---

ExitReason KvmVcpu::fail(std::string text) {
    error_ = std::move(text);
    return ExitReason::internal_error;
}

bool KvmVcpu::check(char const* what, int result) const {
    if (result >= 0) return true;
    if (error_.empty()) error_ = kvm_error(what, result).message();
    return false;
}

ExitReason KvmVcpu::run(std::uint64_t) {
    if (!error_.empty()) return ExitReason::internal_error;
    thread_id_.store(gettid(), std::memory_order_relaxed);
    if (!kernel_apic_ && !take_apic_from_bus()) return ExitReason::internal_error;
    for (;;) {
        store_immediate_exit(run_, 0);
        if (auto reason = before_entry()) return leave(*reason);
        if (auto reason = after_exit(enter())) return leave(*reason);
    }
}

std::optional<ExitReason> KvmVcpu::before_entry() {
    if (machine_.broken()) return fail(machine_.broken_text());
    if (exit_asked_.exchange(false, std::memory_order_seq_cst)) return ExitReason::requested;
    if (signals_.load(std::memory_order_seq_cst)) {
        if (needs_completion_) {
            // State is only consistent once the instruction under way has finished.
            complete_only_ = true;
            store_immediate_exit(run_, 1);
            return std::nullopt;
        }
        if (auto reason = take_signals()) return reason;
    }
    switch (kernel_apic_ && activity_ != x86::Activity::shutdown ? x86::Activity::running : activity_) {
    case x86::Activity::running: break;
    case x86::Activity::wait_for_sipi: return ExitReason::wait_for_sipi;
    case x86::Activity::shutdown: return ExitReason::shutdown;
    case x86::Activity::halted:
        if (!wakes_from_halt()) return ExitReason::halted;
        activity_ = x86::Activity::running;
        // HLT has no shadow, and nothing may come between the end of HLT and the interrupt that ends it.
        run_->ready_for_interrupt_injection = 1;
    }
    if (injects_ && !inject()) return ExitReason::internal_error;
    return std::nullopt;
}

std::optional<ExitReason> KvmVcpu::take_signals() {
    std::uint32_t bits = signals_.exchange(0, std::memory_order_seq_cst);
    auto has = [&](CpuSignal what) { return bits >> unsigned(what) & 1; };
    if (has(CpuSignal::init)) apply_init_signal();
    if (has(CpuSignal::sipi)) apply_sipi(sipi_vector_.load(std::memory_order_relaxed));
    if (has(CpuSignal::nmi)) {
        check("KVM_NMI", machine_.api().ioctl(vcpu_.get(), KVM_NMI, std::uintptr_t(0)));
        if (activity_ == x86::Activity::halted) activity_ = x86::Activity::running;
    }
    if (has(CpuSignal::smi)) {
        if (machine_.caps().smm) {
            check("KVM_SMI", machine_.api().ioctl(vcpu_.get(), KVM_SMI, std::uintptr_t(0)));
            if (activity_ == x86::Activity::halted) activity_ = x86::Activity::running;
        } else {
            machine_.log().unimp("an SMI was lost: this host's KVM has no system management mode");
        }
    }
    if (!error_.empty()) return ExitReason::internal_error;
    return std::nullopt;
}

void KvmVcpu::apply_init_signal() {
    x86::State s = kernel_state();
    x86::apply_init(s, config_.model.signature(), config_.bsp);
    set_kernel_state(s);
}

void KvmVcpu::apply_sipi(std::uint8_t vector) {
    if (activity_ != x86::Activity::wait_for_sipi) return;
    x86::State s = kernel_state();
    s.seg[x86::cs].selector = std::uint16_t(vector << 8);
    s.seg[x86::cs].base = std::uint64_t(vector) << 12;
    s.rip = 0;
    s.activity = x86::Activity::running;
    set_kernel_state(s);
}

// Hands the CPU an external interrupt when it can take one, or asks to be told when it can.
bool KvmVcpu::inject() {
    if (holds_irqs_) return run_->request_interrupt_window = 0, true;
    if (run_->ready_for_interrupt_injection && bus_.interrupt_pending()) {
        if (auto vector = bus_.acknowledge_interrupt()) {
            if (!queue_interrupt(*vector)) return false;
            run_->ready_for_interrupt_injection = 0;
        }
    }
    run_->request_interrupt_window = bus_.interrupt_pending();
    return true;
}

bool KvmVcpu::queue_interrupt(std::uint8_t vector) {
    if (!kernel_apic_) {
        kvm_interrupt request{};
        request.irq = vector;
        return check("KVM_INTERRUPT", call(KVM_INTERRUPT, &request));
    }
    // With the local APIC in the kernel KVM_INTERRUPT leaves the vector where no call can read it, so that it would be
    // lost with this vCPU. The CPU is ready for it: it may as well be under delivery already.
    kvm_vcpu_events events{};
    if (!check("KVM_GET_VCPU_EVENTS", call(KVM_GET_VCPU_EVENTS, &events))) return false;
    events.interrupt.injected = 1, events.interrupt.nr = vector, events.interrupt.soft = 0;
    events.flags = 0;
    if (!check("KVM_SET_VCPU_EVENTS", call(KVM_SET_VCPU_EVENTS, &events))) return false;
    return kernel_activity() != x86::Activity::halted || set_kernel_activity(x86::Activity::running);
}

int KvmVcpu::enter() {
    for (;;) {
        in_guest_.store(true, std::memory_order_seq_cst);
        if (!machine_.gate_closed()) break;
        in_guest_.store(false, std::memory_order_seq_cst);
        machine_.wait_for_gate();
    }
    int result = machine_.api().ioctl(vcpu_.get(), KVM_RUN, std::uintptr_t(0));
    in_guest_.store(false, std::memory_order_seq_cst);
    ++exits_;
    return result;
}

std::optional<ExitReason> KvmVcpu::after_exit(int result) {
    needs_completion_ = complete_only_ = false;
    if_flag_ = run_->if_flag;
    if (!kernel_apic_) sync_tpr_to_bus();
    drain_coalesced();
    if (result == -EINTR || result == -EAGAIN) return std::nullopt;
    if (result < 0) return fail_with_registers(kvm_error("KVM_RUN", result).message());
    return handle_exit();
}

// Finishes an instruction whose I/O was just done, so that the state outside run() is that between two instructions.
ExitReason KvmVcpu::leave(ExitReason reason) {
    for (unsigned guard = 0; needs_completion_ && reason != ExitReason::internal_error; ++guard) {
        VMM_ASSERT(guard < 4096);
        store_immediate_exit(run_, 1);
        if (auto other = after_exit(enter())) reason = *other;
    }
    if (!kernel_apic_ && activity_ == x86::Activity::halted && reason == ExitReason::halted && wakes_from_halt())
        return ExitReason::requested;
    return reason;
}

void KvmVcpu::sync_tpr_to_bus() {
    if (run_->cr8 != cr8_) {
        cr8_ = std::uint8_t(run_->cr8 & 15);
        bus_.set_task_priority(cr8_);
    }
    if (run_->apic_base != apic_base_) {
        apic_base_ = run_->apic_base;
        // KVM has checked each step, but shows only the last: from x2APIC mode the way back leads through "disabled".
        constexpr std::uint64_t mode_bits = 0xc00;
        bool done = bus_.apic_msr_write(x86::msr::apic_base, apic_base_) ||
                    (bus_.apic_msr_write(x86::msr::apic_base, apic_base_ & ~mode_bits) &&
                     bus_.apic_msr_write(x86::msr::apic_base, apic_base_));
        if (!done) machine_.log().guest_error("IA32_APIC_BASE = {:#x} is not valid", apic_base_);
    }
}

bool KvmVcpu::take_apic_from_bus() {
    sync_tpr_from_bus();
    std::uint64_t base = bus_.apic_msr_read(x86::msr::apic_base).value_or(apic_base_);
    if (base == apic_base_) return true;
    kvm_sregs sregs{};
    if (!check("KVM_GET_SREGS", call(KVM_GET_SREGS, &sregs))) return false;
    sregs.apic_base = run_->apic_base = apic_base_ = base;
    return check("KVM_SET_SREGS", call(KVM_SET_SREGS, &sregs));
}

void KvmVcpu::sync_tpr_from_bus() { run_->cr8 = cr8_ = bus_.task_priority(); }

void KvmVcpu::harvest_dirty_ring(std::function<void(unsigned, std::uint64_t)> const& page) {
    if (!dirty_ring_) return;
    std::uint32_t size = machine_.options().dirty_ring_entries;
    for (std::uint32_t n = 0; n < size; ++n) {
        kvm_dirty_gfn& entry = dirty_ring_[dirty_next_ % size];
        if (!(__atomic_load_n(&entry.flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY)) break;
        page(entry.slot & 0xffff, entry.offset);
        __atomic_store_n(&entry.flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
        ++dirty_next_;
    }
}

// --- state ---

x86::State KvmVcpu::state() const {
    x86::State s = kernel_state();
    std::uint32_t waiting = signals_.load(std::memory_order_seq_cst);
    s.nmi_pending |= (waiting >> unsigned(CpuSignal::nmi) & 1) != 0;
    s.smi_pending |= (waiting >> unsigned(CpuSignal::smi) & 1) != 0;
    s.init_pending = waiting >> unsigned(CpuSignal::init) & 1;
    s.sipi_pending = waiting >> unsigned(CpuSignal::sipi) & 1;
    s.sipi_vector = sipi_vector_.load(std::memory_order_relaxed);
    return s;
}

x86::State KvmVcpu::kernel_state() const {
    x86::State s;
    kvm_regs regs{};
    kvm_sregs sregs{};
    abi::Xsave xsave{};
    kvm_xcrs xcrs{};
    kvm_debugregs debug{};
    kvm_vcpu_events events{};
    // First, for it makes the kernel take a waiting INIT or SIPI, which changes registers.
    s.activity = activity_;
    if (kernel_apic_ && activity_ != x86::Activity::shutdown) s.activity = kernel_activity();
    bool ok = error_.empty() && check("KVM_GET_REGS", call(KVM_GET_REGS, &regs)) &&
              check("KVM_GET_SREGS", call(KVM_GET_SREGS, &sregs)) &&
              check("KVM_GET_XSAVE", call(abi::get_xsave, &xsave)) &&
              check("KVM_GET_XCRS", call(KVM_GET_XCRS, &xcrs)) &&
              check("KVM_GET_DEBUGREGS", call(KVM_GET_DEBUGREGS, &debug)) &&
              check("KVM_GET_VCPU_EVENTS", call(KVM_GET_VCPU_EVENTS, &events));
    if (!ok) return s;
    from_kvm(regs, s);
    from_kvm(sregs, s);
    from_kvm(xsave, s, xsave_layout_);
    from_kvm(xcrs, s);
    from_kvm(debug, s);
    from_kvm(events, s);
    get_msrs(s);
    return s;
}

x86::Activity KvmVcpu::kernel_activity() const {
    kvm_mp_state mp{};
    if (!check("KVM_GET_MP_STATE", call(KVM_GET_MP_STATE, &mp))) return activity_;
    switch (mp.mp_state) {
    case KVM_MP_STATE_UNINITIALIZED:
    case KVM_MP_STATE_INIT_RECEIVED: return x86::Activity::wait_for_sipi;
    case KVM_MP_STATE_HALTED: return x86::Activity::halted;
    default: return x86::Activity::running;
    }
}

bool KvmVcpu::set_kernel_activity(x86::Activity activity) {
    kvm_mp_state mp{.mp_state = KVM_MP_STATE_RUNNABLE};
    if (activity == x86::Activity::halted) mp.mp_state = KVM_MP_STATE_HALTED;
    if (activity == x86::Activity::wait_for_sipi) mp.mp_state = KVM_MP_STATE_INIT_RECEIVED;
    return check("KVM_SET_MP_STATE", call(KVM_SET_MP_STATE, &mp));
}

std::uint32_t KernelApic::word(unsigned at) const {
    std::uint32_t value;
    std::memcpy(&value, page.regs + at, 4);
    return value;
}

Result<std::uint32_t> KvmVcpu::timer_count(bool& counts) const {
    constexpr unsigned r_lvt_timer = 0x320, r_initial = 0x380, r_current = 0x390;
    constexpr std::uint32_t lvt_masked = 1u << 16, lvt_deadline_mode = 1u << 18;
    KernelApic apic;
    if (int result = call(KVM_GET_LAPIC, &apic.page); result < 0) return kvm_error("KVM_GET_LAPIC", result);
    counts = !(apic.word(r_lvt_timer) & (lvt_masked | lvt_deadline_mode)) && apic.word(r_initial);
    return apic.word(r_current);
}

Result<std::uint32_t> KvmVcpu::settle() {
    constexpr unsigned tries = 8; // only a timer with a period of microseconds wants more
    if (activity_ == x86::Activity::shutdown) return 0;
    kernel_activity();
    if (!error_.empty()) return Error(error_);
    std::uint32_t after = 0;
    for (unsigned n = 0; n < tries; ++n) {
        bool counts = false;
        std::uint32_t before = TRY(timer_count(counts));
        if (!counts) return 0;
        // The count is over by the clock, which says nothing of the kernel's timer: that is late on a busy CPU.
        if (!before) machine_.api().let_timers_run();
        store_immediate_exit(run_, 0);
        int result = machine_.api().run_kicked(vcpu_.get());
        if (result < 0 && result != -EINTR && result != -EAGAIN) return kvm_error("KVM_RUN", result);
        if (!before) return 0;
        after = TRY(timer_count(counts));
        if (after && after <= before) break;
        // It ended in between, before or after the entry.
    }
    return after;
}

Result<KvmVcpu::TimeStamp> KvmVcpu::time_stamp() const {
    TimeStamp stamp;
    std::vector<kvm_msr_entry> msrs{msr_entry(x86::msr::tsc_adjust, 0), msr_entry(x86::msr::tsc, 0)};
    int result = transfer_msrs(machine_.api(), vcpu_.get(), abi::get_msrs, msrs, [](std::uint32_t) {});
    if (result < 0) return kvm_error("KVM_GET_MSRS", result);
    for (kvm_msr_entry const& e : msrs) (e.index == x86::msr::tsc ? stamp.counter : stamp.adjust) = e.data;
    if (!machine_.caps().tsc_offset) return stamp;
    std::uint64_t offset = 0;
    kvm_device_attr attribute{.flags = 0, .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = {}};
    attribute.addr = reinterpret_cast<std::uintptr_t>(&offset);
    result = call(KVM_GET_DEVICE_ATTR, &attribute);
    if (result < 0) return kvm_error("KVM_GET_DEVICE_ATTR", result);
    stamp.offset = offset;
    return stamp;
}

Result<void> KvmVcpu::set_time_stamp(std::uint64_t counter) {
    std::vector<kvm_msr_entry> msrs{msr_entry(x86::msr::tsc, counter)};
    int result = transfer_msrs(machine_.api(), vcpu_.get(), abi::set_msrs, msrs, [](std::uint32_t) {});
    if (result < 0) return kvm_error("KVM_SET_MSRS", result);
    return {};
}

Result<void> KvmVcpu::set_time_stamp_offset(std::uint64_t offset) {
    kvm_device_attr attribute{.flags = 0, .group = KVM_VCPU_TSC_CTRL, .attr = KVM_VCPU_TSC_OFFSET, .addr = {}};
    attribute.addr = reinterpret_cast<std::uintptr_t>(&offset);
    if (int result = call(KVM_SET_DEVICE_ATTR, &attribute); result < 0) return kvm_error("KVM_SET_DEVICE_ATTR", result);
    return {};
}

Result<KernelApic> KvmVcpu::kernel_apic() const {
    KernelApic apic;
    apic.tsc_hz = tsc_hz_;
    kvm_sregs sregs{};
    if (int result = call(KVM_GET_SREGS, &sregs); result < 0) return kvm_error("KVM_GET_SREGS", result);
    apic.apic_base = sregs.apic_base;
    if (int result = call(KVM_GET_LAPIC, &apic.page); result < 0) return kvm_error("KVM_GET_LAPIC", result);
    std::vector<kvm_msr_entry> msrs{msr_entry(x86::msr::tsc, 0), msr_entry(x86::msr::tsc_deadline, 0)};
    int result = transfer_msrs(machine_.api(), vcpu_.get(), abi::get_msrs, msrs, [](std::uint32_t) {});
    if (result < 0) return kvm_error("KVM_GET_MSRS", result);
    for (kvm_msr_entry const& e : msrs) (e.index == x86::msr::tsc ? apic.tsc : apic.tsc_deadline) = e.data;
    return apic;
}

Result<void> KvmVcpu::set_kernel_apic(KernelApic const& apic) {
    kvm_sregs sregs{};
    if (int result = call(KVM_GET_SREGS, &sregs); result < 0) return kvm_error("KVM_GET_SREGS", result);
    sregs.apic_base = apic.apic_base;
    if (int result = call(KVM_SET_SREGS, &sregs); result < 0) return kvm_error("KVM_SET_SREGS", result);
    kvm_lapic_state page = apic.page;
    if (int result = call(KVM_SET_LAPIC, &page); result < 0) return kvm_error("KVM_SET_LAPIC", result);
    std::vector<kvm_msr_entry> msrs{msr_entry(x86::msr::tsc_deadline, apic.tsc_deadline)};
    int result = transfer_msrs(machine_.api(), vcpu_.get(), abi::set_msrs, msrs, [](std::uint32_t) {});
    if (result < 0) return kvm_error("KVM_SET_MSRS", result);
    return {};
}

void KvmVcpu::get_msrs(x86::State& s) const {
    std::vector<kvm_msr_entry> entries;
    for (std::uint32_t index : msrs_) entries.push_back(msr_entry(index, 0));
    auto refused = [&](std::uint32_t index) { machine_.note_refused_msr(index), std::erase(msrs_, index); };
    if (!check("KVM_GET_MSRS", transfer_msrs(machine_.api(), vcpu_.get(), abi::get_msrs, entries, refused))) return;
    std::array<ArrayMsr, max_array_msrs> arrays;
    std::size_t n = array_msrs(s, unsigned(s.mc_banks.size() / 4), arrays);
    for (kvm_msr_entry const& e : entries) {
        for (StateMsr const& row : state_msrs())
            if (row.index == e.index) s.*row.place = e.data;
        for (std::size_t i = 0; i < n; ++i)
            if (arrays[i].index == e.index) *arrays[i].value = e.data;
    }
}

void KvmVcpu::set_msrs(x86::State const& state) {
    x86::State s = state;
    std::array<ArrayMsr, max_array_msrs> arrays;
    std::size_t n = array_msrs(s, unsigned(s.mc_banks.size() / 4), arrays);
    std::vector<kvm_msr_entry> entries{msr_entry(x86::msr::tsc, bus_.tsc() + s.tsc_adjust)};
    for (std::uint32_t index : msrs_) {
        for (StateMsr const& row : state_msrs())
            if (row.index == index) entries.push_back(msr_entry(index, s.*row.place));
        for (std::size_t i = 0; i < n; ++i)
            if (arrays[i].index == index) entries.push_back(msr_entry(index, *arrays[i].value));
    }
    auto refused = [&](std::uint32_t index) { machine_.note_refused_msr(index), std::erase(msrs_, index); };
    check("KVM_SET_MSRS", transfer_msrs(machine_.api(), vcpu_.get(), abi::set_msrs, entries, refused));
}

void KvmVcpu::set_state(x86::State const& s) {
    set_kernel_state(s);
    std::uint32_t waiting = 0;
    if (s.init_pending) waiting |= 1u << unsigned(CpuSignal::init);
    if (s.sipi_pending)
        waiting |= 1u << unsigned(CpuSignal::sipi), sipi_vector_.store(s.sipi_vector, std::memory_order_relaxed);
    if (s.smi_pending && !machine_.caps().smm) waiting |= 1u << unsigned(CpuSignal::smi);
    signals_.store(waiting, std::memory_order_seq_cst);
}

// Registers alone: signals that come meanwhile stay.
void KvmVcpu::set_kernel_state(x86::State const& s) {
    kvm_regs regs{};
    kvm_sregs sregs{};
    abi::Xsave xsave{};
    kvm_xcrs xcrs{};
    kvm_debugregs debug{};
    kvm_vcpu_events events{};
    if (!check("KVM_GET_SREGS", call(KVM_GET_SREGS, &sregs))) return;
    to_kvm(s, regs);
    to_kvm(s, sregs);
    // IA32_APIC_BASE and CR8 are the board's: run() fetches them, for here the caller may hold the device lock.
    to_kvm(s, xsave, xsave_layout_);
    to_kvm(s, xcrs);
    to_kvm(s, debug);
    to_kvm(s, events,
           (machine_.caps().smm ? KVM_VCPUEVENT_VALID_SMM : 0) |
               (machine_.caps().triple_fault_event ? KVM_VCPUEVENT_VALID_TRIPLE_FAULT : 0));
    bool ok = check("KVM_SET_SREGS", call(KVM_SET_SREGS, &sregs)) && check("KVM_SET_REGS", call(KVM_SET_REGS, &regs)) &&
              check("KVM_SET_XCRS", call(KVM_SET_XCRS, &xcrs)) &&
              check("KVM_SET_XSAVE", call(abi::set_xsave, &xsave)) &&
              check("KVM_SET_DEBUGREGS", call(KVM_SET_DEBUGREGS, &debug));
    if (!ok) return;
    set_msrs(s);
    if (!check("KVM_SET_VCPU_EVENTS", call(KVM_SET_VCPU_EVENTS, &events))) return;
    activity_ = s.activity;
    if (kernel_apic_ && activity_ != x86::Activity::shutdown && !set_kernel_activity(activity_)) return;
    if_flag_ = s.rflags & x86::flag::if_;
    run_->ready_for_interrupt_injection = if_flag_ && !s.interrupt_shadow && !s.event_pending;
    needs_completion_ = false;
}

Result<std::vector<std::uint8_t>> KvmVcpu::own_state() const {
    unsigned room = machine_.caps().nested_state_bytes;
    if (room < sizeof(kvm_nested_state)) return std::vector<std::uint8_t>();
    abi::NestedState state(room);
    if (int result = call(KVM_GET_NESTED_STATE, state.head()); result < 0)
        return kvm_error("KVM_GET_NESTED_STATE", result);
    kvm_nested_state const& head = *state.head();
    // GIF is set on every CPU that never did CLGI.
    bool off = head.format == KVM_STATE_NESTED_FORMAT_VMX ? head.hdr.vmx.vmxon_pa == ~0ull
                                                          : head.flags == KVM_STATE_NESTED_GIF_SET;
    if (off) return std::vector<std::uint8_t>();
    auto const* bytes = reinterpret_cast<std::uint8_t const*>(state.head());
    return std::vector<std::uint8_t>(bytes, bytes + std::min(head.size, room));
}

Result<void> KvmVcpu::set_own_state(std::vector<std::uint8_t> const& bytes) {
    if (bytes.empty()) return leave_nested();
    if (bytes.size() > machine_.caps().nested_state_bytes || bytes.size() < sizeof(kvm_nested_state))
        return error("the guest runs guests of its own, and this host's KVM does not take their state over");
    abi::NestedState state(bytes.size());
    std::memcpy(state.head(), bytes.data(), bytes.size());
    state.head()->size = std::uint32_t(bytes.size());
    if (int result = call(KVM_SET_NESTED_STATE, state.head()); result < 0)
        return kvm_error("KVM_SET_NESTED_STATE", result);
    return {};
}

// Registers alone do not end a guest of the guest, nor VMX.
Result<void> KvmVcpu::leave_nested() {
    std::vector<std::uint8_t> const bytes = TRY(own_state());
    if (bytes.size() < sizeof(kvm_nested_state)) return {};
    abi::NestedState state(sizeof(kvm_nested_state));
    std::memcpy(state.head(), bytes.data(), sizeof(kvm_nested_state));
    state.head()->size = sizeof(kvm_nested_state);
    state.head()->flags = KVM_STATE_NESTED_GIF_SET;
    if (state.head()->format == KVM_STATE_NESTED_FORMAT_VMX) {
        state.head()->flags = 0;
        state.head()->hdr.vmx = {};
        state.head()->hdr.vmx.vmxon_pa = state.head()->hdr.vmx.vmcs12_pa = ~0ull;
    }
    if (int result = call(KVM_SET_NESTED_STATE, state.head()); result < 0)
        return kvm_error("KVM_SET_NESTED_STATE", result);
    return {};
}

void KvmVcpu::reset(bool bsp) {
    if (auto done = leave_nested(); !done && error_.empty()) error_ = done.error().message();
    set_state(x86::reset_state(config_.model.signature(), bsp));
}

std::optional<std::uint64_t> KvmVcpu::translate(std::uint64_t linear) {
    kvm_translation request{};
    request.linear_address = linear;
    if (call(KVM_TRANSLATE, &request) < 0 || !request.valid) return std::nullopt;
    return request.physical_address;
}

Result<void> KvmVcpu::set_guest_debug(GuestDebug const& request) {
    kvm_guest_debug debug{};
    if (request.single_step || request.software_breakpoints || !request.hardware.empty())
        debug.control = KVM_GUESTDBG_ENABLE;
    if (request.single_step) debug.control |= KVM_GUESTDBG_SINGLESTEP;
    // KVM steps by setting TF, and an interrupt would push it: the guest would trap at its IRET, long after.
    bool hold = request.single_step && machine_.caps().debug_blocks_irqs;
    if (hold) debug.control |= KVM_GUESTDBG_BLOCKIRQ;
    if (request.software_breakpoints) debug.control |= KVM_GUESTDBG_USE_SW_BP;
    if (request.hardware.size() > 4)
        return error("a CPU has four hardware breakpoints, not {}", request.hardware.size());
    if (!request.hardware.empty()) debug.control |= KVM_GUESTDBG_USE_HW_BP;
    std::uint64_t dr7 = 0x400;
    for (std::size_t i = 0; i < request.hardware.size(); ++i) {
        GuestDebug::Hardware const& bp = request.hardware[i];
        std::uint64_t length = bp.size == 8 ? 2 : bp.size - 1; // DR7 LEN: 1, 2, 8, 4 bytes
        debug.arch.debugreg[i] = bp.address;
        dr7 |= std::uint64_t(2) << 2 * i | std::uint64_t(bp.type & 3) << (16 + 4 * i) | (length & 3) << (18 + 4 * i);
    }
    debug.arch.debugreg[7] = dr7;
    if (int result = call(KVM_SET_GUEST_DEBUG, &debug); result < 0) return kvm_error("KVM_SET_GUEST_DEBUG", result);
    holds_irqs_ = hold;
    return {};
}

} // namespace vmm::kvm
