#include "vmm/kvm/kvm_machine.h"

#include "vmm/kvm/kvm_abi.h"
#include "vmm/kvm/kvm_cpuid.h"

#include <sched.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::kvm {

namespace {

// Where Intel's KVM keeps a task state segment and page table of its own for real mode: three pages and one, below the
// firmware area (KVM API, KVM_SET_TSS_ADDR).
constexpr std::uint64_t identity_map_address = 0xfeffc000, tss_address = 0xfeffd000;
constexpr unsigned max_cpuid_entries = 1024, max_msrs = 4096, max_nested_state = 1 << 20;

struct Needed {
    unsigned capability;
    char const* name;
};
constexpr Needed needed[] = {
    {KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    {KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    {KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    {KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},
    {KVM_CAP_READONLY_MEM, "KVM_CAP_READONLY_MEM"},
    {KVM_CAP_VCPU_EVENTS, "KVM_CAP_VCPU_EVENTS"},
    {KVM_CAP_DEBUGREGS, "KVM_CAP_DEBUGREGS"},
    {KVM_CAP_XSAVE, "KVM_CAP_XSAVE"},
    {KVM_CAP_XCRS, "KVM_CAP_XCRS"},
    {KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
};

} // namespace

Result<std::unique_ptr<KvmMachine>> KvmMachine::create(KvmApi& api, Log& log, HostFacts const& host,
                                                       KvmOptions options) {
    std::unique_ptr<KvmMachine> machine(new KvmMachine(api, log, options));
    machine->device_.reset(TRY(open_device(api, host)));
    int fd;
    do // the kernel may be told to stop creating by a signal
        fd = api.ioctl(machine->device_.get(), KVM_CREATE_VM, std::uintptr_t(0));
    while (fd == -EINTR);
    if (fd < 0) return kvm_error("KVM_CREATE_VM", fd);
    machine->vm_.reset(fd);
    TRY(machine->probe());
    TRY(machine->set_up_vm());
    TRY(machine->read_cpuid());
    TRY(machine->read_msr_list());
    return machine;
}

KvmMachine::~KvmMachine() { detach_memory(); }

Result<void> KvmMachine::probe() {
    for (Needed const& need : needed)
        if (check(need.capability) <= 0)
            return error("KVM of this host is too old: it lacks {} (use -accel tcg)", need.name);
    auto number = [&](unsigned long capability) { return unsigned(std::max(check(capability), 0)); };
    caps_.max_slots = std::max(number(KVM_CAP_NR_MEMSLOTS), 32u);
    caps_.max_vcpus = std::max({number(KVM_CAP_MAX_VCPUS), number(KVM_CAP_NR_VCPUS), 4u});
    caps_.coalesced_page = number(KVM_CAP_COALESCED_MMIO);
    caps_.coalesced_pio = number(KVM_CAP_COALESCED_PIO);
    caps_.user_msr = number(KVM_CAP_X86_USER_SPACE_MSR);
    caps_.smm = number(KVM_CAP_X86_SMM);
    caps_.tsc_control = number(KVM_CAP_TSC_CONTROL);
    caps_.tsc_rate = number(KVM_CAP_GET_TSC_KHZ);
    caps_.emulation_failure_bytes = number(KVM_CAP_EXIT_ON_EMULATION_FAILURE);
    caps_.triple_fault_event = number(KVM_CAP_X86_TRIPLE_FAULT_EVENT);
    caps_.notify_exit = number(KVM_CAP_X86_NOTIFY_VMEXIT) & KVM_X86_NOTIFY_VMEXIT_USER;
    caps_.manual_dirty_protect = number(KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2) & KVM_DIRTY_LOG_MANUAL_PROTECT_ENABLE;
    caps_.dirty_ring_bytes = number(KVM_CAP_DIRTY_LOG_RING);
    caps_.irqfd_resample = number(KVM_CAP_IRQFD_RESAMPLE);
    caps_.tsc_deadline = number(KVM_CAP_TSC_DEADLINE_TIMER);
    caps_.tsc_offset = number(KVM_CAP_VCPU_ATTRIBUTES);
    caps_.debug_blocks_irqs = number(KVM_CAP_SET_GUEST_DEBUG2) & KVM_GUESTDBG_BLOCKIRQ;
    caps_.mce_banks = number(KVM_CAP_MCE);
    caps_.nested_state_bytes = std::min(number(KVM_CAP_NESTED_STATE), max_nested_state);
    int size = api_.ioctl(device_.get(), KVM_GET_VCPU_MMAP_SIZE, std::uintptr_t(0));
    if (size < int(sizeof(kvm_run))) return kvm_error("KVM_GET_VCPU_MMAP_SIZE", size < 0 ? size : -EINVAL);
    run_size_ = std::size_t(size);
    return {};
}

Result<void> KvmMachine::enable(unsigned capability, std::uint64_t argument) {
    kvm_enable_cap request{};
    request.cap = capability;
    request.args[0] = argument;
    int result = api_.ioctl(vm_.get(), KVM_ENABLE_CAP, &request);
    if (result < 0) return kvm_error(fmt::format("KVM_ENABLE_CAP {}", capability).c_str(), result);
    return {};
}

Result<void> KvmMachine::set_up_vm() {
    std::uint64_t identity = identity_map_address;
    if (int result = api_.ioctl(vm_.get(), KVM_SET_IDENTITY_MAP_ADDR, &identity); result < 0)
        return kvm_error("KVM_SET_IDENTITY_MAP_ADDR", result);
    if (int result = api_.ioctl(vm_.get(), KVM_SET_TSS_ADDR, std::uintptr_t(tss_address)); result < 0)
        return kvm_error("KVM_SET_TSS_ADDR", result);
    if (caps_.emulation_failure_bytes) TRY(enable(KVM_CAP_EXIT_ON_EMULATION_FAILURE, 1));
    if (caps_.triple_fault_event) TRY(enable(KVM_CAP_X86_TRIPLE_FAULT_EVENT, 1));
    // A guest can build an endless chain of exceptions in microcode, which no interrupt of the host would end. The
    // shortest window is long enough for all that is no attack.
    if (caps_.notify_exit)
        TRY(enable(KVM_CAP_X86_NOTIFY_VMEXIT, KVM_X86_NOTIFY_VMEXIT_ENABLED | KVM_X86_NOTIFY_VMEXIT_USER));
    if (options_.irqchip == KernelIrqchip::off && caps_.user_msr)
        TRY(enable(KVM_CAP_X86_USER_SPACE_MSR, KVM_MSR_EXIT_REASON_INVAL | KVM_MSR_EXIT_REASON_UNKNOWN));
    if (options_.dirty_ring_entries) {
        std::uint64_t bytes = std::uint64_t(options_.dirty_ring_entries) * sizeof(kvm_dirty_gfn);
        if (bytes > caps_.dirty_ring_bytes)
            return error("dirty-ring-size={}: this host's KVM offers at most {}", options_.dirty_ring_entries,
                         caps_.dirty_ring_bytes / sizeof(kvm_dirty_gfn));
        TRY(enable(KVM_CAP_DIRTY_LOG_RING, bytes));
    }
    if (options_.irqchip == KernelIrqchip::split) {
        if (check(KVM_CAP_SPLIT_IRQCHIP) <= 0) return error("kernel-irqchip=split: this host's KVM does not offer it");
        TRY(enable(KVM_CAP_SPLIT_IRQCHIP, 24));
    } else if (options_.irqchip == KernelIrqchip::on) {
        if (check(KVM_CAP_IRQCHIP) <= 0) return error("kernel-irqchip=on: this host's KVM does not offer it");
        if (int result = api_.ioctl(vm_.get(), KVM_CREATE_IRQCHIP, std::uintptr_t(0)); result < 0)
            return kvm_error("KVM_CREATE_IRQCHIP", result);
    }
    return {};
}

Result<void> KvmMachine::read_cpuid() {
    for (unsigned room = 128;; room *= 2) {
        if (room > max_cpuid_entries) return kvm_error("KVM_GET_SUPPORTED_CPUID", -E2BIG);
        abi::CpuidList list(room);
        int result = api_.ioctl(device_.get(), abi::get_supported_cpuid, list.head());
        if (result == -E2BIG) continue;
        if (result < 0) return kvm_error("KVM_GET_SUPPORTED_CPUID", result);
        supported_cpuid_.assign(list.entries(), list.entries() + std::min(list.head()->count, room));
        return {};
    }
}

Result<void> KvmMachine::read_msr_list() {
    abi::Head4 head;
    int result = api_.ioctl(device_.get(), abi::get_msr_index_list, &head);
    if (result < 0 && result != -E2BIG) return kvm_error("KVM_GET_MSR_INDEX_LIST", result);
    if (head.count > max_msrs) return kvm_error("KVM_GET_MSR_INDEX_LIST", -E2BIG);
    abi::MsrList list(head.count);
    result = api_.ioctl(device_.get(), abi::get_msr_index_list, list.head());
    if (result < 0) return kvm_error("KVM_GET_MSR_INDEX_LIST", result);
    msrs_.assign(list.entries(), list.entries() + std::min(list.head()->count, head.count));
    std::ranges::sort(msrs_);
    return {};
}

bool KvmMachine::saves_msr(std::uint32_t index) const { return std::ranges::binary_search(msrs_, index); }

x86::FeatureSet KvmMachine::features() const {
    return features_of(supported_cpuid_, options_.irqchip, caps_.tsc_deadline);
}

void KvmMachine::note_refused_msr(std::uint32_t index) {
    std::lock_guard lock(mutex_);
    if (std::ranges::find(refused_msrs_, index) != refused_msrs_.end()) return;
    refused_msrs_.push_back(index);
    log_.unimp("KVM of this host refuses MSR {:#x}: left as it is", index);
}

Result<void> KvmMachine::use_memory(AddressSpace& space) {
    VMM_ASSERT(!space_);
    {
        std::lock_guard closer(closer_);
        slots_.emplace(caps_.max_slots);
    }
    space_ = &space;
    TRY(update_slots());
    listener_ = space.add_listener([this] {
        auto done = update_slots();
        if (!done) mark_broken(done.error().message());
    });
    return {};
}

void KvmMachine::detach_memory() {
    if (space_ && listener_) space_->remove_listener(listener_);
    space_ = nullptr;
    listener_ = 0;
}

Result<void> KvmMachine::update_slots() {
    std::lock_guard closer(closer_);
    auto changes = slots_->update(wanted_slots(space_->view()));
    if (!changes) return error("the guest's memory map needs more than the {} slots KVM has", caps_.max_slots);
    if (changes->empty()) return {};
    return with_gate_closed([&]() -> Result<void> {
        for (SlotTable::Change const& change : *changes) {
            // What was logged so far would be lost with the slot.
            if (change.remove && change.slot.dirty_log && !options_.dirty_ring_entries) TRY(sync_bitmap(change.slot));
            TRY(apply(change));
        }
        return {};
    });
}

Result<void> KvmMachine::apply(SlotTable::Change const& change) {
    Slot const& slot = change.slot;
    kvm_userspace_memory_region region{};
    region.slot = slot.id;
    region.guest_phys_addr = slot.address;
    region.memory_size = change.remove ? 0 : slot.size;
    region.userspace_addr = reinterpret_cast<std::uintptr_t>(slot.ram->host() + slot.offset);
    region.flags = (slot.read_only ? KVM_MEM_READONLY : 0) | (slot.dirty_log ? KVM_MEM_LOG_DIRTY_PAGES : 0);
    int result = api_.ioctl(vm_.get(), KVM_SET_USER_MEMORY_REGION, &region);
    if (result < 0)
        return kvm_error(fmt::format("KVM_SET_USER_MEMORY_REGION slot {} ({:#x}, {:#x} bytes of {})", slot.id,
                                     slot.address, slot.size, slot.ram->name())
                             .c_str(),
                         result);
    return {};
}

Result<void> KvmMachine::sync_bitmap(Slot const& slot) {
    std::uint64_t pages = slot.size >> page_bits;
    std::vector<std::uint64_t> bits((pages + 63) / 64);
    kvm_dirty_log request{};
    request.slot = slot.id;
    request.dirty_bitmap = bits.data();
    int result = api_.ioctl(vm_.get(), KVM_GET_DIRTY_LOG, &request);
    if (result < 0) return kvm_error("KVM_GET_DIRTY_LOG", result);
    for (std::uint64_t word = 0; word < bits.size(); ++word)
        for (std::uint64_t left = bits[word]; left; left &= left - 1) {
            std::uint64_t page = word * 64 + unsigned(__builtin_ctzll(left));
            if (page < pages) slot.ram->written(slot.offset + page * page_size, page_size);
        }
    return {};
}

Result<void> KvmMachine::sync_rings() {
    return with_gate_closed([&]() -> Result<void> {
        std::lock_guard lock(mutex_);
        for (GateUser* user : users_)
            user->harvest_dirty_ring([&](unsigned id, std::uint64_t page) {
                for (Slot const& slot : slots_->slots())
                    if (slot.id == id && page < slot.size >> page_bits)
                        slot.ram->written(slot.offset + page * page_size, page_size);
            });
        int result = api_.ioctl(vm_.get(), KVM_RESET_DIRTY_RINGS, std::uintptr_t(0));
        if (result < 0) return kvm_error("KVM_RESET_DIRTY_RINGS", result);
        return {};
    });
}

Result<void> KvmMachine::sync_dirty_log() {
    std::lock_guard closer(closer_);
    if (!slots_) return {};
    if (options_.dirty_ring_entries) return sync_rings();
    for (Slot const& slot : slots_->slots())
        if (slot.dirty_log) TRY(sync_bitmap(slot));
    return {};
}

void KvmMachine::dirty_ring_full() {
    auto done = sync_dirty_log();
    if (!done) mark_broken(done.error().message());
}

Result<void> KvmMachine::with_gate_closed(std::function<Result<void>()> const& work) {
    gate_closed_.store(true, std::memory_order_seq_cst);
    Result<void> result;
    {
        std::unique_lock lock(mutex_);
        for (GateUser* user : users_)
            while (user->in_guest()) {
                user->kick();
                sched_yield();
            }
    }
    result = work();
    {
        std::lock_guard lock(mutex_);
        gate_closed_.store(false, std::memory_order_seq_cst);
    }
    gate_opened_.notify_all();
    return result;
}

Result<void> KvmMachine::outside_guest(std::function<Result<void>()> const& work) {
    std::lock_guard closer(closer_);
    return with_gate_closed(work);
}

void KvmMachine::wait_for_gate() {
    std::unique_lock lock(mutex_);
    gate_opened_.wait(lock, [&] { return !gate_closed_.load(std::memory_order_seq_cst); });
}

void KvmMachine::add_gate_user(GateUser& user) {
    std::lock_guard lock(mutex_);
    users_.push_back(&user);
}

void KvmMachine::remove_gate_user(GateUser& user) {
    std::lock_guard lock(mutex_);
    std::erase(users_, &user);
}

void KvmMachine::mark_broken(std::string text) {
    {
        std::lock_guard lock(mutex_);
        if (broken_text_.empty()) broken_text_ = std::move(text);
        for (GateUser* user : users_) user->kick();
    }
    broken_.store(true, std::memory_order_release);
}

std::string KvmMachine::broken_text() const {
    std::lock_guard lock(mutex_);
    return broken_text_;
}

Result<std::uint64_t> KvmMachine::kvmclock() const {
    kvm_clock_data data{};
    if (int result = api_.ioctl(vm_.get(), KVM_GET_CLOCK, &data); result < 0) return kvm_error("KVM_GET_CLOCK", result);
    return data.clock;
}

Result<void> KvmMachine::set_kvmclock(std::uint64_t value) {
    kvm_clock_data data{};
    data.clock = value;
    if (int result = api_.ioctl(vm_.get(), KVM_SET_CLOCK, &data); result < 0) return kvm_error("KVM_SET_CLOCK", result);
    return {};
}

Result<bool> KvmMachine::add_coalesced_zone(GuestPhys address, std::uint32_t size, bool port) {
    if (!caps_.coalesced_page || (port && !caps_.coalesced_pio)) return false;
    kvm_coalesced_mmio_zone zone{};
    zone.addr = address;
    zone.size = size;
    zone.pio = port;
    int result = api_.ioctl(vm_.get(), KVM_REGISTER_COALESCED_MMIO, &zone);
    if (result < 0) return kvm_error("KVM_REGISTER_COALESCED_MMIO", result);
    coalesced_zones_.store(true, std::memory_order_release);
    return true;
}

} // namespace vmm::kvm
