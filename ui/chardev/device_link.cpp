#include "ui/chardev/device_link.h"

#include <algorithm>

namespace vmm::ui {

DeviceLink::DeviceLink(CharStream& stream, Mutex& device_lock) : stream_(stream), device_lock_(device_lock) {}

DeviceLink::~DeviceLink() { detach(); }

void DeviceLink::attach(dev::CharReceiver& receiver) {
    {
        MutexLock lock(device_lock_);
        receiver_ = &receiver;
        receiver.set_on_can_receive([this] { stream_.accept_input(); });
    }
    stream_.set_frontend(this);
}

void DeviceLink::detach() {
    stream_.set_frontend(nullptr);
    MutexLock lock(device_lock_);
    if (receiver_) receiver_->set_on_can_receive({});
    receiver_ = nullptr;
}

std::size_t DeviceLink::write(std::span<std::uint8_t const> bytes) { return stream_.write(bytes); }
void DeviceLink::set_on_writable(std::function<void()> callback) { on_writable_ = std::move(callback); }
void DeviceLink::send_break(bool on) { stream_.send_break(on); }

std::size_t DeviceLink::receive(std::span<std::uint8_t const> bytes) {
    MutexLock lock(device_lock_);
    if (!receiver_) return bytes.size();
    std::size_t n = std::min(bytes.size(), receiver_->can_receive());
    if (n != 0) receiver_->receive(bytes.first(n));
    return n;
}

void DeviceLink::writable() {
    MutexLock lock(device_lock_);
    if (on_writable_) on_writable_();
}

void DeviceLink::event(CharEvent what) {
    if (what != CharEvent::serial_break) return;
    MutexLock lock(device_lock_);
    if (receiver_) receiver_->receive_break();
}

} // namespace vmm::ui
