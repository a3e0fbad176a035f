// What the PCI tests share: a router and a bus in two empty address spaces.
#pragma once
#include "devices/pci/bus.h"
#include "devices/pci/msi.h"

#include <array>
#include <utility>
#include <vector>

namespace vmm::test {

struct FakeRouter final : dev::PciIntxRouter {
    std::array<bool, 4> wires{};
    void set_intx(unsigned wire, bool level) override { wires.at(wire) = level; }
};

struct FakeMsiTarget final : dev::MsiTarget {
    std::vector<std::pair<std::uint64_t, std::uint32_t>> sent;
    void deliver_msi(std::uint64_t address, std::uint32_t data) override { sent.push_back({address, data}); }
};

// A bank of four bytes that are read back.
struct FakeRegisters final : IoHandler {
    std::uint64_t value = 0;
    std::uint64_t read(std::uint64_t, unsigned) override { return value; }
    void write(std::uint64_t, unsigned, std::uint64_t v) override { value = v; }
};

struct FakePci {
    AddressSpace memory{"memory", UINT64_MAX}, io{"I/O", 0xffff};
    FakeRouter router;
    dev::PciBus bus{{memory, io, router}};
};

} // namespace vmm::test
