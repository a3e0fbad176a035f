// GuestRunner: executes sequences on one of our engines, as a user program under page tables of our making.
#pragma once
#include "tests/diff/sample.h"
#include "vmm/cpu/cpu_bus.h"
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
    class Bus;
    void build_tables();
    std::uint8_t* host(std::uint64_t physical) { return ram_->host() + physical; }

    Log log_{"diff"};
    AddressSpace memory_{"memory", ~std::uint64_t(0)}, io_{"I/O", 0xffff};
    std::unique_ptr<RamBlock> ram_;
    std::unique_ptr<Bus> bus_;
    tcg::Shared shared_;
    std::unique_ptr<tcg::X86Vcpu> vcpu_;
};

} // namespace vmm::diff
