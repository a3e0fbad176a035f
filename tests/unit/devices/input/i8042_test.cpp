#include "devices/input/i8042.h"
#include "devices/input/ps2_keyboard.h"
#include "devices/input/ps2_mouse.h"
#include "tests/support/fake_irq_line.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::dev;
using Bytes = std::vector<int>;

namespace {
struct Controller : testing::Test {
    test::FakeIrqLine irq1, irq12, a20, reset;
    Ps2Keyboard keyboard;
    Ps2Mouse mouse;
    Log log{"test"};
    I8042 controller{{irq1, irq12, a20, reset, keyboard, mouse, log}};

    int status() { return int(controller.command().read(0, 1)); }
    int data() { return int(controller.data().read(0, 1)); }
    void command(int value) { controller.command().write(0, 1, std::uint64_t(value)); }
    void write(int value) { controller.data().write(0, 1, std::uint64_t(value)); }
    Bytes drain() {
        Bytes all;
        while (status() & 1) all.push_back(data());
        return all;
    }
};
} // namespace

TEST_F(Controller, self_and_interface_tests_pass) {
    command(0xaa);
    EXPECT_EQ(status() & 0x0d, 0x0d);
    EXPECT_EQ(data(), 0x55);
    EXPECT_EQ(status() & 1, 0);
    command(0xab);
    EXPECT_EQ(data(), 0);
    command(0xa9);
    EXPECT_EQ(data(), 0);
}

TEST_F(Controller, command_byte_is_read_and_written) {
    command(0x60);
    write(0x65);
    command(0x20);
    EXPECT_EQ(data(), 0x65);
    EXPECT_EQ(status() & 0x04, 0x04);
}

TEST_F(Controller, an_unread_reply_is_replaced_by_the_next) {
    command(0xaa);
    command(0xab);
    EXPECT_EQ(drain(), (Bytes{0}));
}

TEST_F(Controller, keys_raise_irq_1_once_a_byte) {
    keyboard.key(Key::a, true);
    keyboard.key(Key::a, false);
    EXPECT_TRUE(irq1.level());
    EXPECT_EQ(drain(), (Bytes{0x1c, 0xf0, 0x1c}));
    EXPECT_EQ(irq1.rises(), 3u);
    EXPECT_FALSE(irq1.level());
}

TEST_F(Controller, translation_makes_set_1_of_set_2) {
    controller.set_up_as_firmware();
    keyboard.key(Key::a, true);
    keyboard.key(Key::a, false);
    keyboard.key(Key::left, true);
    keyboard.key(Key::left, false);
    EXPECT_EQ(drain(), (Bytes{0x1e, 0x9e, 0xe0, 0x4b, 0xe0, 0xcb}));
    write(0xf2);
    EXPECT_EQ(drain(), (Bytes{0xfa, 0xab, 0x41}));
}

TEST_F(Controller, every_key_code_survives_translation_there_and_back) {
    controller.set_up_as_firmware();
    for (int code = 1; code < 0x59; ++code) {
        if (code == 0x55) continue; // no key
        keyboard.key(Key(code), true);
        keyboard.key(Key(code), false);
        EXPECT_EQ(drain(), (Bytes{code, code | 0x80})) << code;
    }
}

TEST_F(Controller, a_disabled_keyboard_interface_keeps_its_bytes_until_enabled) {
    command(0xad);
    keyboard.key(Key::a, true);
    EXPECT_EQ(status() & 1, 0);
    command(0xae);
    EXPECT_EQ(drain(), (Bytes{0x1c}));
}

TEST_F(Controller, the_mouse_answers_through_d4_with_irq_12_and_the_auxiliary_bit) {
    command(0xd4);
    write(0xf4);
    EXPECT_EQ(status() & 0x21, 0x21);
    EXPECT_TRUE(irq12.level());
    EXPECT_FALSE(irq1.level());
    EXPECT_EQ(data(), 0xfa);
    mouse.mouse(200, 0, 0, 0);
    EXPECT_EQ(drain(), (Bytes{0x08, 127, 0, 0x08, 73, 0}));
    command(0xa7);
    mouse.mouse(1, 0, 0, 0);
    EXPECT_EQ(status() & 1, 0);
}

TEST_F(Controller, talking_to_a_device_switches_its_interface_on) {
    command(0x60);
    write(0x33);
    command(0xd4);
    write(0xf2);
    EXPECT_EQ(drain(), (Bytes{0xfa, 0x00}));
    write(0xee);
    EXPECT_EQ(drain(), (Bytes{0xee}));
    command(0x20);
    EXPECT_EQ(data(), 0x03);
}

TEST_F(Controller, d2_and_d3_loop_a_byte_back_as_either_device) {
    command(0xd3);
    write(0x5a);
    EXPECT_EQ(status() & 0x20, 0x20);
    EXPECT_EQ(data(), 0x5a);
    command(0xd2);
    write(0xa5);
    EXPECT_EQ(status() & 0x20, 0);
    EXPECT_EQ(data(), 0xa5);
}

TEST_F(Controller, output_port_governs_a20_and_reset) {
    EXPECT_TRUE(a20.level());
    command(0xd1);
    write(0xdd);
    EXPECT_FALSE(a20.level());
    command(0xd0);
    EXPECT_EQ(data() & 0x03, 0x01);
    command(0xdf);
    EXPECT_TRUE(a20.level());
    EXPECT_EQ(reset.rises(), 0u);
    command(0xfe);
    EXPECT_EQ(reset.rises(), 1u);
    command(0xd1);
    write(0x02);
    EXPECT_EQ(reset.rises(), 2u);
    command(0xff);
    EXPECT_EQ(reset.rises(), 2u);
}

TEST_F(Controller, a_loaded_state_raises_its_interrupt_and_keeps_its_byte) {
    keyboard.key(Key::q, true);
    StateWriter writer;
    controller.save(writer);
    controller.reset();
    EXPECT_FALSE(irq1.level());
    StateReader reader(writer.bytes());
    ASSERT_TRUE(controller.load(reader).ok());
    EXPECT_TRUE(irq1.level());
    EXPECT_EQ(data(), 0x15);
}
