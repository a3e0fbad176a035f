// FakeDma: device-side memory access to a small block of bytes starting at address 0.
#pragma once
#include "vmm/memory/address_space.h"

#include <algorithm>
#include <vector>

namespace vmm::test {

class FakeDma final : public DmaSpace {
public:
    explicit FakeDma(std::size_t size = 64 * 1024) : bytes(size) {}
    bool read(GuestPhys a, std::span<std::uint8_t> to) override {
        if (a > bytes.size() || to.size() > bytes.size() - a) return false;
        std::copy_n(bytes.begin() + std::ptrdiff_t(a), to.size(), to.begin());
        return true;
    }
    bool write(GuestPhys a, std::span<std::uint8_t const> from) override {
        if (a > bytes.size() || from.size() > bytes.size() - a) return false;
        std::ranges::copy(from, bytes.begin() + std::ptrdiff_t(a));
        return true;
    }
    std::vector<std::uint8_t> bytes;
};

} // namespace vmm::test
