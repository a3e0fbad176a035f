// A KVM without a kernel: keeps what it is told, plays back exits a test scripts, and fails any call a test names.
#pragma once
#include "vmm/kvm/kvm_abi.h"
#include "vmm/kvm/kvm_api.h"

#include <linux/kvm.h>

#include <deque>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace vmm::kvm {

class FakeKvm final : public KvmApi {
public:
    FakeKvm();
    ~FakeKvm() override;
    int open(char const* path) override;
    int ioctl(int fd, unsigned long request, std::uintptr_t argument) override;
    using KvmApi::ioctl;
    void* map(int fd, std::size_t size, std::size_t offset, int& error) override;
    void unmap(void* address, std::size_t size) override;
    void kick(int thread_id) override;
    void let_timers_run() override { ++timer_waits; }

    // The n-th call from now on (1: the next; open and map count) returns -`error`. 0: none.
    void fail_call(unsigned n, int error) { calls_ = 0, fail_at_ = n, fail_error_ = error; }
    // Every call of this request returns -error.
    void fail_request(unsigned long request, int error) { failing_[request] = error; }
    unsigned calls() const { return calls_; }
    // The request that was made to fail, for messages.
    unsigned long failed_request() const { return failed_; }
    // Each KVM_RUN takes the next one; it fills kvm_run and returns the result. None left: -EINTR.
    std::deque<std::function<int(kvm_run&)>> script;
    std::map<unsigned long, int> capabilities; // overrides
    int api_version = KVM_API_VERSION;
    int open_error = 0;
    std::set<std::uint32_t> refused_msrs;
    std::vector<unsigned long> requests; // all, in order
    std::map<std::uint32_t, kvm_userspace_memory_region> slots;
    std::vector<std::uint64_t> dirty_bits{}; // what KVM_GET_DIRTY_LOG answers
    std::vector<std::uint32_t> interrupts;
    std::function<void(kvm_lapic_state&)> on_get_lapic; // fills in what KVM_GET_LAPIC answers
    unsigned kicks = 0, live_maps = 0, timer_waits = 0;
    kvm_run* run = nullptr;
    std::vector<std::uint8_t>& blob(unsigned get_number) { return blobs_[get_number]; }
    std::map<std::uint32_t, std::uint64_t> msrs;
    std::vector<std::uint8_t> nested_state; // what KVM_SET_NESTED_STATE got and KVM_GET_NESTED_STATE answers
    std::vector<kvm_cpuid_entry2> cpuid;    // what KVM_SET_CPUID2 got
    static constexpr std::size_t run_bytes = 3 * 4096;
    static constexpr unsigned coalesced_page = 2;

private:
    int answer(unsigned long request, std::uintptr_t argument);
    int check_extension(unsigned long capability) const;
    int supported_cpuid(abi::Head8* head) const;
    int msr_list(abi::Head4* head) const;
    int transfer_msrs(abi::Head8* head, bool set);
    int get_nested(kvm_nested_state& head) const;
    int set_region(kvm_userspace_memory_region const& region);
    int get_or_set(unsigned long request, std::uintptr_t argument);
    int next_fd();
    unsigned calls_ = 0, fail_at_ = 0;
    int fail_error_ = 0;
    unsigned long failed_ = 0;
    std::map<unsigned long, int> failing_;
    std::map<unsigned, std::vector<std::uint8_t>> blobs_;
};

} // namespace vmm::kvm
