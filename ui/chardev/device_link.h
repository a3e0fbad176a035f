// DeviceLink: joins a device (CharSink and CharReceiver of devices/core) to a CharStream.
#pragma once
#include "devices/core/char_port.h"
#include "ui/chardev/char_stream.h"
#include "vmm/base/thread_annotations.h"

namespace vmm::ui {

// The device calls the CharSink side on any thread with the device lock held; this object takes the device lock itself
// before it calls into the device from the loop's thread. Owned by main beside the machine: make the link, hand it to
// the device as its CharSink, then attach() the device; detach() before the device goes. `stream` and `device_lock`
// outlive it.
class DeviceLink final : public dev::CharSink, private CharFrontend {
public:
    DeviceLink(CharStream& stream, Mutex& device_lock);
    ~DeviceLink() override;
    DeviceLink(DeviceLink const&) = delete;
    DeviceLink& operator=(DeviceLink const&) = delete;

    // Loop thread, without the device lock, before vCPUs run.
    void attach(dev::CharReceiver& receiver);
    void detach();

    // dev::CharSink, device lock held.
    std::size_t write(std::span<std::uint8_t const> bytes) override;
    void set_on_writable(std::function<void()> callback) override;
    void send_break(bool on) override;

private:
    std::size_t receive(std::span<std::uint8_t const> bytes) override;
    void writable() override;
    void event(CharEvent what) override;

    CharStream& stream_;
    Mutex& device_lock_;
    dev::CharReceiver* receiver_ = nullptr; // set before vCPUs run
    std::function<void()> on_writable_;     // guarded by the device lock
};

} // namespace vmm::ui
