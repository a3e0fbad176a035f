// The PS/2 keyboard and mouse alone.
#include "devices/input/ps2_keyboard.h"
#include "devices/input/ps2_mouse.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;
using Bytes = std::vector<int>;

namespace {
Bytes drain(Ps2Device& device) {
    Bytes all;
    while (device.has_output()) all.push_back(device.take_output());
    return all;
}
Bytes ask(Ps2Device& device, std::initializer_list<int> commands) {
    Bytes all;
    for (int c : commands) {
        device.command(std::uint8_t(c));
        for (int b : drain(device)) all.push_back(b);
    }
    return all;
}
Bytes press(Ps2Keyboard& keyboard, Key key) {
    keyboard.key(key, true);
    keyboard.key(key, false);
    return drain(keyboard);
}
} // namespace

TEST(Ps2Keyboard, speaks_scan_code_set_2_by_default) {
    Ps2Keyboard k;
    EXPECT_EQ(press(k, Key::a), (Bytes{0x1c, 0xf0, 0x1c}));
    EXPECT_EQ(press(k, Key::left), (Bytes{0xe0, 0x6b, 0xe0, 0xf0, 0x6b}));
    EXPECT_EQ(press(k, Key(0x41)), (Bytes{0x83, 0xf0, 0x83})); // F7
    EXPECT_EQ(press(k, Key::pause), (Bytes{0xe1, 0x14, 0x77, 0xe1, 0xf0, 0x14, 0xf0, 0x77}));
}

TEST(Ps2Keyboard, print_screen_is_sysrq_with_alt) {
    Ps2Keyboard k;
    EXPECT_EQ(press(k, Key::print), (Bytes{0xe0, 0x12, 0xe0, 0x7c, 0xe0, 0xf0, 0x7c, 0xe0, 0xf0, 0x12}));
    k.key(Key::alt, true);
    drain(k);
    EXPECT_EQ(press(k, Key::print), (Bytes{0x84, 0xf0, 0x84}));
}

TEST(Ps2Keyboard, sets_1_and_3_can_be_chosen_and_asked_for) {
    Ps2Keyboard k;
    EXPECT_EQ(ask(k, {0xf0, 1}), (Bytes{0xfa, 0xfa}));
    EXPECT_EQ(press(k, Key::ctrl_r), (Bytes{0xe0, 0x1d, 0xe0, 0x9d}));
    EXPECT_EQ(ask(k, {0xf0, 3, 0xf0, 0}), (Bytes{0xfa, 0xfa, 0xfa, 0xfa, 3}));
    EXPECT_EQ(press(k, Key::ctrl_r), (Bytes{0x58, 0xf0, 0x58}));
    EXPECT_EQ(press(k, Key::f12), (Bytes{0x5e, 0xf0, 0x5e}));
    EXPECT_EQ(ask(k, {0xf9}), (Bytes{0xfa}));
    EXPECT_EQ(press(k, Key::q), (Bytes{0x15}));
    EXPECT_EQ(ask(k, {0xf0, 9}), (Bytes{0xfa, 0xfe}));
}

TEST(Ps2Keyboard, single_keys_of_set_3_can_be_silent_when_released) {
    Ps2Keyboard k;
    EXPECT_EQ(ask(k, {0xf0, 3, 0xfd, 0x1c, 0xfb, 0x58}), Bytes(6, 0xfa)); // a: make only; right ctrl: typematic
    EXPECT_EQ(press(k, Key::a), (Bytes{0x1c}));
    EXPECT_EQ(press(k, Key::ctrl_r), (Bytes{0x58}));
    EXPECT_EQ(press(k, Key::s), (Bytes{0x1b, 0xf0, 0x1b}));
    EXPECT_EQ(ask(k, {0xfc, 0x1c}), (Bytes{0xfa, 0xfa})); // make and break
    EXPECT_EQ(press(k, Key::a), (Bytes{0x1c, 0xf0, 0x1c}));
    EXPECT_EQ(press(k, Key::ctrl_r), (Bytes{0x58}));
    EXPECT_EQ(ask(k, {0xfa}), (Bytes{0xfa}));
    EXPECT_EQ(press(k, Key::ctrl_r), (Bytes{0x58, 0xf0, 0x58}));
    EXPECT_EQ(ask(k, {0xfd, 0x1c, 0xf0, 2}), Bytes(4, 0xfa)); // the other sets always break
    EXPECT_EQ(press(k, Key::a), (Bytes{0x1c, 0xf0, 0x1c}));
}

TEST(Ps2Keyboard, answers_its_commands) {
    Ps2Keyboard k;
    EXPECT_EQ(ask(k, {0xee}), (Bytes{0xee}));
    EXPECT_EQ(ask(k, {0xf2}), (Bytes{0xfa, 0xab, 0x83}));
    EXPECT_EQ(ask(k, {0xff}), (Bytes{0xfa, 0xaa}));
    EXPECT_EQ(ask(k, {0xfe}), (Bytes{0xaa}));
    EXPECT_EQ(ask(k, {0x01}), (Bytes{0xfe}));
}

TEST(Ps2Keyboard, lamps_are_reported_to_the_host) {
    Ps2Keyboard k;
    std::vector<int> leds;
    k.set_on_leds([&](std::uint8_t l) { leds.push_back(l); });
    EXPECT_EQ(ask(k, {0xed, 0x07}), (Bytes{0xfa, 0xfa}));
    k.reset();
    EXPECT_EQ(leds, (std::vector<int>{7, 0}));
}

TEST(Ps2Keyboard, a_disabled_keyboard_is_silent) {
    Ps2Keyboard k;
    ask(k, {0xf5});
    EXPECT_TRUE(press(k, Key::a).empty());
    ask(k, {0xf4});
    EXPECT_EQ(press(k, Key::a).size(), 3u);
}

TEST(Ps2Keyboard, too_many_keys_end_in_one_overrun_code_and_replies_overtake_them) {
    Ps2Keyboard k;
    for (int i = 0; i < 100; ++i) k.key(Key::a, true);
    k.command(0xee);
    Bytes all = drain(k);
    EXPECT_EQ(all.front(), 0xee);
    EXPECT_EQ(all.back(), 0x00);
    EXPECT_LE(all.size(), 1u + Ps2Queue::capacity);
    EXPECT_EQ(std::count(all.begin(), all.end(), 0), 1);
}

TEST(Ps2Mouse, reports_movement_with_y_up_and_buttons) {
    Ps2Mouse m;
    m.mouse(5, 5, 0, 0);
    EXPECT_FALSE(m.has_output()); // not enabled
    EXPECT_EQ(ask(m, {0xf4}), (Bytes{0xfa}));
    m.mouse(10, -3, 0, mouse_left);
    EXPECT_EQ(drain(m), (Bytes{0x09, 10, 3}));
    m.mouse(-1, 2, 0, mouse_left | mouse_middle);
    EXPECT_EQ(drain(m), (Bytes{0x3d, 0xff, 0xfe}));
    m.mouse(0, 0, 0, 0);
    EXPECT_EQ(drain(m), (Bytes{0x08, 0, 0}));
    m.mouse(0, 0, 0, 0);
    EXPECT_FALSE(m.has_output());
}

TEST(Ps2Mouse, movement_that_does_not_fit_a_packet_follows_in_the_next) {
    Ps2Mouse m;
    ask(m, {0xf4});
    m.mouse(200, 0, 0, 0);
    EXPECT_EQ(drain(m), (Bytes{0x08, 127, 0, 0x08, 73, 0}));
}

TEST(Ps2Mouse, the_rate_knocks_switch_the_protocol) {
    Ps2Mouse m;
    EXPECT_EQ(ask(m, {0xf2}), (Bytes{0xfa, 0}));
    ask(m, {0xf3, 200, 0xf3, 100, 0xf3, 80});
    EXPECT_EQ(ask(m, {0xf2}), (Bytes{0xfa, 3}));
    ask(m, {0xf4});
    m.mouse(0, 0, 1, 0);
    EXPECT_EQ(drain(m), (Bytes{0x08, 0, 0, 1}));
    ask(m, {0xf3, 200, 0xf3, 200, 0xf3, 80});
    EXPECT_EQ(ask(m, {0xf2}), (Bytes{0xfa, 4}));
    m.mouse(0, 0, -1, mouse_side | mouse_extra);
    EXPECT_EQ(drain(m), (Bytes{0x08, 0, 0, 0x3f}));
    EXPECT_EQ(ask(m, {0xff, 0xf2}), (Bytes{0xfa, 0xaa, 0, 0xfa, 0}));
}

TEST(Ps2Mouse, status_remote_mode_and_wrap_mode) {
    Ps2Mouse m;
    ask(m, {0xe8, 3, 0xf3, 40, 0xf4, 0xe7});
    EXPECT_EQ(ask(m, {0xe9}), (Bytes{0xfa, 0x30, 3, 40}));
    ask(m, {0xf0});
    m.mouse(3, 0, 0, 0);
    EXPECT_FALSE(m.has_output());
    EXPECT_EQ(ask(m, {0xeb}), (Bytes{0xfa, 0x08, 3, 0}));
    EXPECT_EQ(ask(m, {0xee, 0x42, 0xec}), (Bytes{0xfa, 0x42, 0xfa}));
}

TEST(Ps2Mouse, an_impossible_state_is_refused) {
    Ps2Mouse m;
    StateWriter writer;
    m.save(writer);
    auto bytes = writer.take();
    std::string text(bytes.begin(), bytes.end());
    bytes[text.find("protocol") + 8 + 5] = 2;
    StateReader reader(bytes);
    EXPECT_FALSE(m.load(reader).ok());
}
