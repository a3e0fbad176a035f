// CharStream and CharFrontend: the two ends of a character connection on the host's side. A stream is what a backend
// (terminal, file, socket, one channel of a mux) offers; a front end is who talks through it (a device by way of
// DeviceLink, or a monitor).
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

namespace vmm::ui {

enum class CharEvent : std::uint8_t {
    opened,       // somebody is there (now, or again): a greeting will be read
    closed,       // the other side has gone; writes are swallowed until `opened`
    focus_gained, // mux: what is typed comes here from now on
    focus_lost,   // mux: what is typed goes elsewhere
    serial_break, // a break condition on the line
};

// Implemented by who talks through a stream. All calls come on the event loop's thread with no lock of the stream held.
class CharFrontend {
public:
    virtual ~CharFrontend() = default;
    // Takes as many of `bytes` as it can use now and returns how many; the stream keeps the rest and offers it again
    // after CharStream::accept_input().
    virtual std::size_t receive(std::span<std::uint8_t const> bytes) = 0;
    // There is room again after a short write.
    virtual void writable() = 0;
    virtual void event(CharEvent what) = 0;
};

class CharStream {
public:
    virtual ~CharStream() = default;
    // Takes as many of `bytes` as fit and returns how many; never blocks. After a short write the front end's
    // writable() is called once there is room. Any thread; may be called under the device lock.
    virtual std::size_t write(std::span<std::uint8_t const> bytes) = 0;
    // The front end can take input again. Any thread; may be called under the device lock.
    virtual void accept_input() = 0;
    // Says who receives; null for nobody. Loop thread (or before the loop runs). `opened` is delivered from the loop if
    // the stream is open.
    virtual void set_frontend(CharFrontend* frontend) = 0;
    // A break condition sent by the guest, for backends with a line; others ignore it. Any thread.
    virtual void send_break(bool on) = 0;
    // Waits until what was written has reached the host, at most a fraction of a second. Loop thread, on the way out.
    virtual void drain() = 0;
};

} // namespace vmm::ui
