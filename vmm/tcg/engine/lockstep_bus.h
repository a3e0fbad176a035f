// What one engine heard from and told the machine, written down, and given again to another engine.
#pragma once
#include "vmm/cpu/cpu_bus.h"

#include <functional>
#include <string>
#include <vector>

namespace vmm::tcg {

// One call of a CpuBus.
struct BusCall {
    enum class Kind : std::uint8_t {
        mmio_read,
        mmio_write,
        port_read,
        port_write,
        acknowledge,
        task_priority,
        set_task_priority,
        msr_read,
        msr_write,
        tsc,
        ferr,
        random,
        smm
    };
    Kind kind;
    std::uint64_t address = 0;
    unsigned size = 0;
    std::uint64_t value = 0; // told or heard
    bool answered = true;    // of optional and bool results
    std::string describe() const;
};

// What one block asked and told, in order.
struct BusRecord {
    std::vector<BusCall> calls;
    std::vector<bool> interrupt_lines; // answers of interrupt_pending(), which may change at any moment
    void clear() { calls.clear(), interrupt_lines.clear(); }
};

// Passes everything on to the machine's bus and keeps a list of it. On the vCPU's thread like the bus itself.
class RecordingBus final : public CpuBus {
public:
    explicit RecordingBus(CpuBus& machine) : machine_(machine) {}
    BusRecord& record() { return record_; }

    AddressSpace& memory() override { return machine_.memory(); }
    void set_smm(bool active) override;
    std::uint64_t mmio_read(GuestPhys a, unsigned size) override;
    void mmio_write(GuestPhys a, unsigned size, std::uint64_t value) override;
    std::uint32_t port_read(std::uint16_t port, unsigned size) override;
    void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;
    bool interrupt_pending() const override;
    std::optional<std::uint8_t> acknowledge_interrupt() override;
    std::uint8_t task_priority() override;
    void set_task_priority(std::uint8_t cr8) override;
    std::optional<std::uint64_t> apic_msr_read(std::uint32_t index) override;
    bool apic_msr_write(std::uint32_t index, std::uint64_t value) override;
    std::uint64_t tsc() override;
    std::uint64_t tsc_hz() const override { return machine_.tsc_hz(); }
    void set_ferr(bool asserted) override;
    std::uint64_t random(unsigned size) override;

private:
    // Adds to the record; `value` is what was told or heard, and comes back.
    std::uint64_t note(BusCall::Kind kind, std::uint64_t address, unsigned size, std::uint64_t value);

    CpuBus& machine_;
    mutable BusRecord record_; // a question is worth a note too
};

// Answers from the list, and notices the first call that is not the one of the list. `after_write` is called at the
// place of each call that may have changed the address map.
class ReplayBus final : public CpuBus {
public:
    ReplayBus(AddressSpace& memory, CpuBus& machine, BusRecord const& record, std::function<void()> after_write)
        : memory_(memory), machine_(machine), record_(record), after_write_(std::move(after_write)) {}
    void begin() { next_ = next_line_ = 0, difference_.clear(); }
    // How the calls since begin() differed from the list; empty: they were the same, and all.
    std::string difference() const;

    AddressSpace& memory() override { return memory_; }
    void set_smm(bool active) override;
    std::uint64_t mmio_read(GuestPhys a, unsigned size) override;
    void mmio_write(GuestPhys a, unsigned size, std::uint64_t value) override;
    std::uint32_t port_read(std::uint16_t port, unsigned size) override;
    void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override;
    bool interrupt_pending() const override;
    std::optional<std::uint8_t> acknowledge_interrupt() override;
    std::uint8_t task_priority() override;
    void set_task_priority(std::uint8_t cr8) override;
    std::optional<std::uint64_t> apic_msr_read(std::uint32_t index) override;
    bool apic_msr_write(std::uint32_t index, std::uint64_t value) override;
    std::uint64_t tsc() override;
    std::uint64_t tsc_hz() const override { return machine_.tsc_hz(); }
    void set_ferr(bool asserted) override;
    std::uint64_t random(unsigned size) override;

private:
    // The list's call if it is this one (values told included); else an unanswered one.
    BusCall take(BusCall const& call, bool tells);

    AddressSpace& memory_;
    CpuBus& machine_;
    BusRecord const& record_;
    std::function<void()> after_write_;
    std::size_t next_ = 0;
    mutable std::size_t next_line_ = 0;
    std::string difference_;
};

} // namespace vmm::tcg
