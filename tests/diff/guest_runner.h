// GuestRunner: executes sequences on one of our engines, as a user program under page tables of our making.
#pragma once
#include "tests/diff/sample.h"
#include "tests/support/fake_cpu_bus.h"
#include "vmm/tcg/engine/x86_vcpu.h"

#include <memory>

namespace vmm::diff {

class GuestRunner {
public:
    explicit GuestRunner(tcg::BackendFactory backend);
    ~GuestRunner();
    void run(Sequence const& sequence, Outcome& out);
    // Prints what is translated, on standard error.
    void trace(bool on);

private:
    void build_tables();
    std::uint8_t* host(std::uint64_t physical) { return ram_->host() + physical; }

    Log log_{"diff"};
    AddressSpace memory_{"memory", ~std::uint64_t(0)};
    std::unique_ptr<RamBlock> ram_;
    test::FakeCpuBus bus_{memory_}; // nothing but RAM is reached
    tcg::Shared shared_;
    std::unique_ptr<tcg::X86Vcpu> vcpu_;
};

} // namespace vmm::diff
