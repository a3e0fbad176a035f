#include "tests/unit/kvm/fake_kvm.h"

#include "vmm/cpu/x86/state.h"

#include <cpuid.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::kvm {

FakeKvm::FakeKvm() {
    capabilities = {{KVM_CAP_COALESCED_MMIO, coalesced_page},
                    {KVM_CAP_NR_MEMSLOTS, 64},
                    {KVM_CAP_DIRTY_LOG_RING, 65536 * 16},
                    {KVM_CAP_MCE, 32},
                    {KVM_CAP_NESTED_STATE, 4096},
                    {KVM_CAP_MAX_VCPUS, 8}};
}

FakeKvm::~FakeKvm() = default;

int FakeKvm::next_fd() { return eventfd(0, EFD_CLOEXEC); }

int FakeKvm::open(char const*) {
    if (open_error) return -open_error;
    if (++calls_ == fail_at_) return -fail_error_;
    return next_fd();
}

int FakeKvm::ioctl(int, unsigned long request, std::uintptr_t argument) {
    requests.push_back(request);
    if (++calls_ == fail_at_) return failed_ = request, -fail_error_;
    if (auto found = failing_.find(request); found != failing_.end()) return failed_ = request, -found->second;
    return answer(request, argument);
}

void* FakeKvm::map(int, std::size_t size, std::size_t, int& error) {
    if (++calls_ == fail_at_) return error = fail_error_, nullptr;
    void* address = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ++live_maps;
    if (size == run_bytes) run = static_cast<kvm_run*>(address);
    return address;
}

void FakeKvm::unmap(void* address, std::size_t size) {
    --live_maps;
    munmap(address, size);
}

void FakeKvm::kick(int) { ++kicks; }

int FakeKvm::check_extension(unsigned long capability) const {
    auto found = capabilities.find(capability);
    return found == capabilities.end() ? 1 : found->second;
}

int FakeKvm::supported_cpuid(abi::Head8* head) const {
    static constexpr std::pair<unsigned, unsigned> leaves[] = {
        {0, 0}, {1, 0}, {6, 0}, {7, 0}, {7, 1}, {0xd, 0}, {0xd, 1}, {0x40000001, 0}, {0x80000001, 0}, {0x80000008, 0}};
    if (head->count < std::size(leaves)) return -E2BIG;
    auto* entry = reinterpret_cast<kvm_cpuid_entry2*>(head + 1);
    for (auto [leaf, subleaf] : leaves) {
        *entry = {};
        entry->function = leaf, entry->index = subleaf;
        if (leaf == 0x40000001)
            entry->eax = 0x01007efb;
        else
            __get_cpuid_count(leaf, subleaf, &entry->eax, &entry->ebx, &entry->ecx, &entry->edx);
        ++entry;
    }
    head->count = std::size(leaves);
    return 0;
}

int FakeKvm::msr_list(abi::Head4* head) const {
    static constexpr std::uint32_t known[] = {0x174,      0x175,      0x176,      0x277,      0x3b,
                                              0x48,       0xc0000081, 0xc0000082, 0xc0000083, 0xc0000084,
                                              0xc0000102, 0xc0000103, 0x1a0,      0x17a,      0x17b};
    bool fits = head->count >= std::size(known);
    head->count = std::size(known);
    if (!fits) return -E2BIG;
    std::memcpy(head + 1, known, sizeof known);
    return 0;
}

int FakeKvm::transfer_msrs(abi::Head8* head, bool set) {
    auto* entries = reinterpret_cast<kvm_msr_entry*>(head + 1);
    for (std::uint32_t i = 0; i < head->count; ++i) {
        if (refused_msrs.contains(entries[i].index)) return int(i);
        if (set)
            msrs[entries[i].index] = entries[i].data;
        else
            entries[i].data = msrs[entries[i].index];
    }
    return int(head->count);
}

int FakeKvm::get_nested(kvm_nested_state& head) const {
    std::uint32_t room = head.size;
    if (nested_state.empty()) {
        head.flags = KVM_STATE_NESTED_GIF_SET, head.format = KVM_STATE_NESTED_FORMAT_SVM, head.size = sizeof head;
        return 0;
    }
    head.size = std::uint32_t(nested_state.size());
    if (room < nested_state.size()) return -E2BIG;
    std::copy(nested_state.begin(), nested_state.end(), reinterpret_cast<std::uint8_t*>(&head));
    return 0;
}

int FakeKvm::set_region(kvm_userspace_memory_region const& region) {
    if ((region.guest_phys_addr | region.memory_size | region.userspace_addr) & 0xfff) return -EINVAL;
    if (region.memory_size == 0) return slots.erase(region.slot) ? 0 : -EINVAL;
    for (auto const& [id, other] : slots)
        if (id != region.slot && region.guest_phys_addr < other.guest_phys_addr + other.memory_size &&
            other.guest_phys_addr < region.guest_phys_addr + region.memory_size)
            return -EEXIST;
    if (auto found = slots.find(region.slot); found != slots.end()) {
        kvm_userspace_memory_region const& old = found->second;
        if (old.guest_phys_addr != region.guest_phys_addr || old.memory_size != region.memory_size ||
            ((old.flags ^ region.flags) & KVM_MEM_READONLY))
            return -EINVAL;
    }
    slots[region.slot] = region;
    return 0;
}

// Register sets: numbers of (get, set).
int FakeKvm::get_or_set(unsigned long request, std::uintptr_t argument) {
    static constexpr std::pair<unsigned, unsigned> pairs[] = {{0x81, 0x82}, {0x83, 0x84}, {0xa4, 0xa5},
                                                              {0xa6, 0xa7}, {0xa1, 0xa2}, {0x9f, 0xa0}};
    unsigned number = _IOC_NR(request), size = _IOC_SIZE(request);
    for (auto [get, set] : pairs) {
        if (number != get && number != set) continue;
        auto& bytes = blobs_[get];
        bytes.resize(size);
        auto* data = reinterpret_cast<std::uint8_t*>(argument);
        if (number == set)
            std::copy_n(data, size, bytes.data());
        else
            std::copy_n(bytes.data(), size, data);
        return 0;
    }
    return -ENOTTY;
}

int FakeKvm::answer(unsigned long request, std::uintptr_t argument) {
    switch (request) {
    case KVM_GET_API_VERSION: return api_version;
    case KVM_CHECK_EXTENSION: return check_extension(argument);
    case KVM_CREATE_VM:
    case KVM_CREATE_VCPU: return next_fd();
    case KVM_GET_VCPU_MMAP_SIZE: return run_bytes;
    case KVM_GET_TSC_KHZ: return 2'000'000;
    case abi::get_supported_cpuid: return supported_cpuid(reinterpret_cast<abi::Head8*>(argument));
    case abi::get_msr_index_list: return msr_list(reinterpret_cast<abi::Head4*>(argument));
    case abi::get_msrs: return transfer_msrs(reinterpret_cast<abi::Head8*>(argument), false);
    case abi::set_msrs: return transfer_msrs(reinterpret_cast<abi::Head8*>(argument), true);
    case abi::set_cpuid2: {
        auto* head = reinterpret_cast<abi::Head8*>(argument);
        auto* entries = reinterpret_cast<kvm_cpuid_entry2*>(head + 1);
        cpuid.assign(entries, entries + head->count);
        return 0;
    }
    case KVM_SET_USER_MEMORY_REGION: return set_region(*reinterpret_cast<kvm_userspace_memory_region*>(argument));
    case KVM_GET_DIRTY_LOG: {
        auto* log = reinterpret_cast<kvm_dirty_log*>(argument);
        std::copy(dirty_bits.begin(), dirty_bits.end(), static_cast<std::uint64_t*>(log->dirty_bitmap));
        return 0;
    }
    case KVM_INTERRUPT: interrupts.push_back(reinterpret_cast<kvm_interrupt*>(argument)->irq); return 0;
    case KVM_GET_LAPIC:
        if (on_get_lapic) on_get_lapic(*reinterpret_cast<kvm_lapic_state*>(argument));
        return 0;
    case KVM_GET_NESTED_STATE: return get_nested(*reinterpret_cast<kvm_nested_state*>(argument));
    case KVM_SET_NESTED_STATE: {
        auto* bytes = reinterpret_cast<std::uint8_t*>(argument);
        nested_state.assign(bytes, bytes + reinterpret_cast<kvm_nested_state*>(argument)->size);
        return 0;
    }
    case KVM_TRANSLATE: {
        auto* t = reinterpret_cast<kvm_translation*>(argument);
        t->physical_address = t->linear_address, t->valid = 1;
        return 0;
    }
    case KVM_RUN: {
        if (run->immediate_exit || script.empty()) return -EINTR;
        auto step = std::move(script.front());
        script.pop_front();
        return step(*run);
    }
    default: {
        int result = get_or_set(request, argument);
        return result == -ENOTTY ? 0 : result;
    }
    }
}

} // namespace vmm::kvm
