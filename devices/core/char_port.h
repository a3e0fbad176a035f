// Characters between a device (UART, debug console, monitor) and the host: two one-way roles.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>

namespace vmm::dev {

// What the device calls: the host side takes bytes out of the machine. Device lock held; never blocks.
class CharSink {
public:
    virtual ~CharSink() = default;
    // Takes as many of `bytes` as fit now and returns how many. When fewer than all, on_writable is called once there
    // is room again.
    virtual std::size_t write(std::span<std::uint8_t const> bytes) = 0;
    virtual void set_on_writable(std::function<void()> callback) = 0;
    // The device's line settings or modem lines, for backends that have them (a real tty, a pty). Default: ignored by
    // backends without lines, which is the architected effect of an unconnected wire.
    virtual void send_break(bool on) = 0;
};

// What the device implements: the host side puts bytes into the machine. Device lock held.
class CharReceiver {
public:
    virtual ~CharReceiver() = default;
    // How many bytes receive() would take now; the host side keeps the rest and asks again after set_on_can_receive's
    // callback.
    virtual std::size_t can_receive() const = 0;
    // `bytes` is at most can_receive() long.
    virtual void receive(std::span<std::uint8_t const> bytes) = 0;
    // A break condition on the line (Ctrl-a b).
    virtual void receive_break() = 0;
    virtual void set_on_can_receive(std::function<void()> callback) = 0;
};

} // namespace vmm::dev
