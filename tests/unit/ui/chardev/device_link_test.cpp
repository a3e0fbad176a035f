#include "tests/support/fake_frontend.h"
#include "ui/chardev/device_link.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::ui;
using namespace vmm::test;

namespace {
// A device with a four-byte FIFO; notes whether the lock was held.
class FakeDevice final : public dev::CharReceiver {
public:
    explicit FakeDevice(Mutex& lock) : lock_(lock) {}
    std::string received;
    int breaks = 0;
    bool always_locked = true;
    std::function<void()> can_receive_callback;

    std::size_t can_receive() const override { return 4 - std::min<std::size_t>(4, received.size()); }
    void receive(std::span<std::uint8_t const> bytes) override {
        check();
        received.append(reinterpret_cast<char const*>(bytes.data()), bytes.size());
    }
    void receive_break() override { check(), ++breaks; }
    void set_on_can_receive(std::function<void()> callback) override { can_receive_callback = std::move(callback); }

private:
    void check() {
        if (lock_.try_lock()) always_locked = false, lock_.unlock();
    }
    Mutex& lock_;
};
} // namespace

TEST(DeviceLink, gives_the_device_what_it_can_take_under_its_lock) {
    Mutex lock;
    FakeStream stream;
    FakeDevice device(lock);
    DeviceLink link(stream, lock);
    link.attach(device);
    EXPECT_EQ(stream.type("abcdef"), 4u);
    EXPECT_EQ(device.received, "abcd");
    stream.frontend->event(CharEvent::serial_break);
    EXPECT_EQ(device.breaks, 1);
    EXPECT_TRUE(device.always_locked);
}

TEST(DeviceLink, tells_the_device_of_room_and_passes_its_output_on) {
    Mutex lock;
    FakeStream stream;
    FakeDevice device(lock);
    DeviceLink link(stream, lock);
    link.attach(device);
    int calls = 0;
    link.set_on_writable([&] { ++calls; });
    EXPECT_EQ(link.write(bytes_of("out")), 3u);
    EXPECT_EQ(stream.written, "out");
    stream.frontend->writable();
    EXPECT_EQ(calls, 1);
    link.detach();
    EXPECT_EQ(stream.frontend, nullptr);
}
