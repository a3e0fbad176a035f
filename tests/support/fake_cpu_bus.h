// A CpuBus over one address space, with ports and an interrupt controller a test can look into.
#pragma once
#include "vmm/cpu/cpu_bus.h"

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <vector>

namespace vmm::test {

class FakeCpuBus final : public CpuBus {
public:
    explicit FakeCpuBus(AddressSpace& memory) : memory_(memory) {}
    struct Access {
        std::uint64_t address;
        unsigned size;
        std::uint64_t value;
        bool operator==(Access const&) const = default;
    };
    AddressSpace& memory() override { return memory_; }
    std::uint64_t mmio_read(GuestPhys a, unsigned size) override {
        mmio_reads.push_back({a, size, 0});
        return memory_.read(a, size);
    }
    void mmio_write(GuestPhys a, unsigned size, std::uint64_t value) override {
        mmio_writes.push_back({a, size, value});
        memory_.write(a, size, value);
    }
    std::uint32_t port_read(std::uint16_t port, unsigned size) override {
        port_reads.push_back({port, size, 0});
        return on_port_read ? on_port_read(port, size) : port * 0x01010101u;
    }
    void port_write(std::uint16_t port, unsigned size, std::uint32_t value) override {
        port_writes.push_back({port, size, value});
        if (on_port_write) on_port_write(port, size, value);
    }
    bool interrupt_pending() const override { return pending.load(); }
    std::optional<std::uint8_t> acknowledge_interrupt() override {
        if (!pending.exchange(false)) return std::nullopt;
        ++acknowledged;
        return vector;
    }
    std::uint8_t task_priority() override { return cr8; }
    void set_task_priority(std::uint8_t value) override { cr8 = value; }
    std::optional<std::uint64_t> apic_msr_read(std::uint32_t index) override {
        if (index == 0x1b) return apic_base;
        return std::nullopt;
    }
    bool apic_msr_write(std::uint32_t index, std::uint64_t value) override {
        if (index != 0x1b) return false;
        apic_base = value;
        return true;
    }
    std::uint64_t tsc() override { return tsc_value += 1000; }
    std::uint64_t tsc_hz() const override { return 1'000'000'000; }
    void set_ferr(bool) override {}

    std::vector<Access> mmio_reads, mmio_writes, port_reads, port_writes;
    std::function<std::uint32_t(std::uint16_t, unsigned)> on_port_read;
    std::function<void(std::uint16_t, unsigned, std::uint32_t)> on_port_write;
    std::atomic<bool> pending{false};
    std::uint8_t vector = 0x40;
    unsigned acknowledged = 0;
    std::uint8_t cr8 = 0;
    std::uint64_t apic_base = 0xfee00900;
    std::uint64_t tsc_value = 0;

private:
    AddressSpace& memory_;
};

} // namespace vmm::test
