// The conformance suite every device passes (DESIGN.md section 6). A device joins with a rig and one line:
//
//     struct MyRig {
//         FakeClock clock;
//         TimerQueue timers{clock};
//         ... fakes, then the device ...
//         dev::Resettable& resettable();
//         dev::Snapshottable& snapshottable();
//         std::vector<IoWindow> windows();
//         static constexpr bool keeps_state_over_reset = true; // only for devices like a battery-backed CMOS
//         void stimulate(std::uint64_t random);                // optional: input from the outside (wires, characters)
//     };
//     INSTANTIATE_TYPED_TEST_SUITE_P(My, DeviceConformance, MyRig);
//
// A rig is default-constructible; two of them given the same calls behave the same. The checks are functions that
// return what is wrong ("" when nothing is), so that the canary test can see them fail.
#pragma once
#include "devices/core/roles.h"
#include "tests/support/fake_clock.h"
#include "vmm/memory/io_handler.h"

#include <gtest/gtest.h>

#include <memory>
#include <random>
#include <string>
#include <vector>

namespace vmm::test {

// A region of a device: offsets 0..size-1, naturally aligned accesses of up to max_access bytes.
struct IoWindow {
    IoHandler* handler;
    std::uint64_t size;
    unsigned max_access = 4;
};

namespace conformance {

template <class Rig> std::vector<std::uint8_t> saved(Rig& rig) {
    StateWriter writer;
    rig.snapshottable().save(writer);
    return writer.take();
}

template <class Rig> bool load(Rig& rig, std::span<std::uint8_t const> bytes) {
    StateReader reader(bytes);
    return rig.snapshottable().load(reader).ok();
}

// `steps` random accesses and steps of time; what the reads gave. The same seed gives the same accesses.
template <class Rig> std::vector<std::uint64_t> random_io(Rig& rig, std::uint64_t seed, unsigned steps) {
    std::mt19937_64 random(seed);
    std::vector<std::uint64_t> seen;
    auto windows = rig.windows();
    for (unsigned i = 0; i < steps; ++i) {
        std::uint64_t r = random(), value = random();
        IoWindow const& window = windows[(r >> 32) % windows.size()];
        unsigned size = 1u << (r >> 8 & 3);
        if (size > window.max_access || size > window.size) size = 1;
        std::uint64_t offset = (r >> 40) % window.size & ~std::uint64_t(size - 1);
        if ((r & 3) == 0) value = value >> 8 & 1 ? ~0ull : value & 0xff;
        if (size < 8) value &= (1ull << (8 * size)) - 1;
        switch (r >> 4 & 15) {
        case 0: rig.clock.advance(rig.timers, Nanoseconds(value % 2'000'000)); break;
        case 1:
            if constexpr (requires { rig.stimulate(value); }) rig.stimulate(value);
            break;
        case 2:
        case 3:
        case 4:
        case 5:
        case 6:
        case 7: seen.push_back(window.handler->read(offset, size)); break;
        default: window.handler->write(offset, size, value); break;
        }
    }
    return seen;
}

template <class Rig> constexpr bool keeps_state_over_reset = requires { Rig::keeps_state_over_reset; };

template <class Rig> std::string reset_is_idempotent() {
    Rig rig;
    rig.resettable().reset();
    auto fresh = saved(rig);
    random_io(rig, 1, 500);
    rig.resettable().reset();
    auto once = saved(rig);
    rig.resettable().reset();
    if (saved(rig) != once) return "a second reset changes the state";
    if (!keeps_state_over_reset<Rig> && once != fresh) return "reset leaves something of what happened before";
    return "";
}

template <class Rig> std::string load_brings_back_what_was_saved() {
    bool mutated = false;
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Rig rig;
        random_io(rig, seed, 300);
        auto before = saved(rig);
        random_io(rig, seed + 1000, 300);
        mutated |= saved(rig) != before;
        if (!load(rig, before)) return "its own saved state is refused";
        if (saved(rig) != before) return "saving after loading gives another state";
    }
    return mutated ? "" : "random I/O never changed the saved state: nothing is being tested";
}

template <class Rig> std::string a_loaded_twin_behaves_the_same() {
    for (std::uint64_t seed = 0; seed < 20; ++seed) {
        Rig original, twin;
        random_io(original, seed, 300);
        twin.clock.set(original.clock.now());
        if (!load(twin, saved(original))) return "a saved state is refused by another instance";
        if (random_io(original, seed + 2000, 300) != random_io(twin, seed + 2000, 300))
            return "after loading, the guest reads other values than without (seed " + std::to_string(seed) + ")";
    }
    return "";
}

template <class Rig> std::string random_access_survives() {
    Rig rig;
    for (std::uint64_t seed = 0; seed < 10; ++seed) random_io(rig, seed + 3000, 5000);
    for (IoWindow const& window : rig.windows())
        for (unsigned size = 1; size <= window.max_access; size *= 2)
            for (std::uint64_t offset = 0; offset + size <= window.size && offset < 0x2000; offset += size) {
                std::uint64_t value = window.handler->read(offset, size);
                if (size < 8 && value >> (8 * size)) return "a read gives more bits than its size";
                window.handler->write(offset, size, value);
            }
    return "";
}

template <class Rig> std::string damaged_states_are_refused_or_valid() {
    Rig rig;
    random_io(rig, 4000, 300);
    auto const good = saved(rig);
    for (std::size_t n = 0; n < good.size(); ++n) {
        if (load(rig, std::span(good).first(n))) return "a state cut to " + std::to_string(n) + " bytes is accepted";
        if (saved(rig) != good) return "a refused load changes the device";
    }
    std::mt19937_64 random(5000);
    for (unsigned i = 0; i < 2000; ++i) {
        auto bad = good;
        for (unsigned flips = 1 + random() % 3; flips; --flips) bad[random() % bad.size()] ^= 1u << (random() % 8);
        Rig victim;
        victim.clock.set(rig.clock.now());
        if (!load(victim, bad)) continue;
        if (!load(victim, saved(victim))) return "a damaged state is accepted, but not the state it leads to";
        random_io(victim, i, 30);
    }
    return "";
}

} // namespace conformance

template <class Rig> class DeviceConformance : public testing::Test {};
TYPED_TEST_SUITE_P(DeviceConformance);
TYPED_TEST_P(DeviceConformance, reset_is_idempotent) { EXPECT_EQ(conformance::reset_is_idempotent<TypeParam>(), ""); }
TYPED_TEST_P(DeviceConformance, load_brings_back_what_was_saved) {
    EXPECT_EQ(conformance::load_brings_back_what_was_saved<TypeParam>(), "");
}
TYPED_TEST_P(DeviceConformance, a_loaded_twin_behaves_the_same) {
    EXPECT_EQ(conformance::a_loaded_twin_behaves_the_same<TypeParam>(), "");
}
TYPED_TEST_P(DeviceConformance, random_access_survives) {
    EXPECT_EQ(conformance::random_access_survives<TypeParam>(), "");
}
TYPED_TEST_P(DeviceConformance, damaged_states_are_refused_or_valid) {
    EXPECT_EQ(conformance::damaged_states_are_refused_or_valid<TypeParam>(), "");
}
REGISTER_TYPED_TEST_SUITE_P(DeviceConformance, reset_is_idempotent, load_brings_back_what_was_saved,
                            a_loaded_twin_behaves_the_same, random_access_survives,
                            damaged_states_are_refused_or_valid);

} // namespace vmm::test
