// Ps2Device: what hangs on one of the keyboard controller's two serial ports.
#pragma once
#include <array>
#include <cstdint>
#include <functional>

namespace vmm::dev {

// Bytes to and from the device; framing and timing of the wire are not modelled. Device lock.
class Ps2Device {
public:
    virtual ~Ps2Device() = default;
    // The host sends a command or its argument.
    virtual void command(std::uint8_t byte) = 0;
    virtual bool has_output() const = 0;
    // The next byte for the host. Only while has_output().
    virtual std::uint8_t take_output() = 0;
    // Called when has_output() may have become true.
    virtual void set_on_output(std::function<void()> callback) = 0;
};

// Bytes waiting to be taken, oldest first. An aggregate that saves as one.
struct Ps2Queue {
    static constexpr unsigned capacity = 16;
    std::array<std::uint8_t, capacity> data{};
    std::uint8_t count = 0;

    bool has_room(unsigned bytes) const { return count + bytes <= capacity; }
    // Drops the byte when there is no room.
    void push(std::uint8_t byte) {
        if (count < capacity) data[count++] = byte;
    }
    // Only while count != 0.
    std::uint8_t pop() {
        std::uint8_t byte = data[0];
        for (unsigned i = 1; i < count; ++i) data[i - 1] = data[i];
        --count;
        return byte;
    }
};
template <class V> void fields(V& v, Ps2Queue& s) {
    v.field("data", s.data);
    v.field("count", s.count);
}

// Bytes of the protocol that keyboard and mouse share.
namespace ps2 {
inline constexpr std::uint8_t ack = 0xfa, resend = 0xfe, self_test_passed = 0xaa;
}

} // namespace vmm::dev
