// Runs a device's conformance rig (device_conformance.h) on a fuzzer's bytes: each command is an operation byte, then
// what it needs: {read, write, input from outside, time, reset, load}.
#pragma once
#include "tests/support/device_conformance.h"

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace vmm::test {

// Up to eight bytes of the input as a number; zero when it is at its end.
inline std::uint64_t take_number(std::span<std::uint8_t const>& input, std::size_t count) {
    std::uint64_t value = 0;
    count = std::min(count, input.size());
    if (count) std::memcpy(&value, input.data(), count);
    input = input.subspan(count);
    return value;
}

template <class Rig> void fuzz_device(std::span<std::uint8_t const> input) {
    Rig rig;
    auto windows = rig.windows();
    // What is left of the input may be a saved state; it is loaded as one.
    auto load_rest = [&] { (void)conformance::load(rig, input); };
    while (!input.empty()) {
        std::uint64_t operation = take_number(input, 1);
        IoWindow const& window = windows[(operation >> 5) % windows.size()];
        unsigned size = 1u << (operation >> 3 & 3);
        if (size > window.max_access || size > window.size) size = 1;
        switch (operation & 7) {
        case 0:
        case 1:
        case 2: {
            std::uint64_t offset = take_number(input, 2) % window.size & ~std::uint64_t(size - 1);
            window.handler->write(offset, size, take_number(input, size));
            break;
        }
        case 3:
        case 4: window.handler->read(take_number(input, 2) % window.size & ~std::uint64_t(size - 1), size); break;
        case 5:
            if constexpr (requires { rig.stimulate(operation); }) rig.stimulate(take_number(input, 8));
            break;
        case 6: rig.clock.advance(rig.timers, Nanoseconds(take_number(input, 4) % 100'000'000)); break;
        default:
            if (operation & 0x80) {
                load_rest();
                input = {};
            } else {
                rig.resettable().reset();
            }
            break;
        }
    }
    auto state = conformance::saved(rig);
    VMM_ASSERT(conformance::load(rig, state)); // whatever a guest did, it can be saved and loaded
}

} // namespace vmm::test

// Defines the fuzzer's entry point for one rig.
#define VMM_FUZZ_DEVICE(Rig)                                                                                           \
    extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {                                \
        vmm::test::fuzz_device<Rig>({data, size});                                                                     \
        return 0;                                                                                                      \
    }
