// KVM structures that end in an array. <linux/kvm.h> declares those with a macro that changes their size under C++ (an
// empty struct is a byte there), and with it the request numbers; so here are the ones we use, by the KVM API document.
#pragma once
#include <linux/kvm.h>

#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

namespace vmm::kvm::abi {

struct Head8 { // kvm_cpuid2, kvm_msrs, kvm_irq_routing
    std::uint32_t count = 0, second = 0;
};
struct Head4 { // kvm_msr_list
    std::uint32_t count = 0;
};
struct Xsave { // kvm_xsave without its extension
    std::uint32_t region[1024];
};
struct SignalMask { // kvm_signal_mask with the kernel's signal set: what KVM_RUN blocks, so nothing
    std::uint32_t length = 8, set[2] = {};
};
struct CoalescedRing { // kvm_coalesced_mmio_ring; the entries follow
    std::uint32_t first, last;
};

inline constexpr unsigned long get_msr_index_list = _IOWR(KVMIO, 0x02, Head4);
inline constexpr unsigned long get_supported_cpuid = _IOWR(KVMIO, 0x05, Head8);
inline constexpr unsigned long set_gsi_routing = _IOW(KVMIO, 0x6a, Head8);
inline constexpr unsigned long get_msrs = _IOWR(KVMIO, 0x88, Head8);
inline constexpr unsigned long set_msrs = _IOW(KVMIO, 0x89, Head8);
inline constexpr unsigned long set_signal_mask = _IOW(KVMIO, 0x8b, Head4);
inline constexpr unsigned long set_cpuid2 = _IOW(KVMIO, 0x90, Head8);
inline constexpr unsigned long get_xsave = _IOR(KVMIO, 0xa4, Xsave);
inline constexpr unsigned long set_xsave = _IOW(KVMIO, 0xa5, Xsave);

// A head followed by entries, in one piece of memory.
template <class Head, class Entry> class List {
public:
    explicit List(std::size_t entries) : bytes_((sizeof(Head) + entries * sizeof(Entry) + 7) / 8) {
        head()->count = std::uint32_t(entries);
    }
    explicit List(std::span<Entry const> entries) : List(entries.size()) {
        if (!entries.empty()) std::memcpy(this->entries(), entries.data(), entries.size_bytes());
    }
    Head* head() { return reinterpret_cast<Head*>(bytes_.data()); }
    Entry* entries() { return reinterpret_cast<Entry*>(reinterpret_cast<std::uint8_t*>(bytes_.data()) + sizeof(Head)); }

private:
    std::vector<std::uint64_t> bytes_;
};
// KVM_GET_NESTED_STATE's: the head says how long all of it is.
class NestedState {
public:
    explicit NestedState(std::size_t size) : words_((size + 7) / 8) { head()->size = std::uint32_t(size); }
    kvm_nested_state* head() { return reinterpret_cast<kvm_nested_state*>(words_.data()); }

private:
    std::vector<std::uint64_t> words_;
};
using CpuidList = List<Head8, kvm_cpuid_entry2>;
using MsrBatch = List<Head8, kvm_msr_entry>;
using MsrList = List<Head4, std::uint32_t>;
using RoutingTable = List<Head8, kvm_irq_routing_entry>;

} // namespace vmm::kvm::abi
