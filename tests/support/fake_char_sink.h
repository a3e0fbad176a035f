// FakeCharSink: a CharSink that keeps what it is given and is full when a test says so.
#pragma once
#include "devices/core/char_port.h"

#include <algorithm>
#include <string>

namespace vmm::test {

class FakeCharSink final : public dev::CharSink {
public:
    std::size_t write(std::span<std::uint8_t const> bytes) override {
        std::size_t taken = std::min(bytes.size(), room_);
        text_.append(reinterpret_cast<char const*>(bytes.data()), taken);
        room_ -= taken;
        return taken;
    }
    void set_on_writable(std::function<void()> callback) override { on_writable_ = std::move(callback); }
    void send_break(bool on) override { break_ = on; }

    // Takes at most `bytes` more; telling the device that there is room is make_room's part.
    void set_room(std::size_t bytes) { room_ = bytes; }
    void make_room(std::size_t bytes) {
        room_ = bytes;
        if (on_writable_) on_writable_();
    }
    std::string const& text() const { return text_; }
    bool in_break() const { return break_; }

private:
    std::string text_;
    std::size_t room_ = SIZE_MAX;
    bool break_ = false;
    std::function<void()> on_writable_;
};

} // namespace vmm::test
