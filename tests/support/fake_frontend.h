// FakeFrontend and FakeStream: both ends of a character connection, recording.
#pragma once
#include "ui/chardev/char_stream.h"

#include <algorithm>
#include <string>
#include <vector>

namespace vmm::test {

inline std::span<std::uint8_t const> bytes_of(std::string_view text) {
    return {reinterpret_cast<std::uint8_t const*>(text.data()), text.size()};
}

class FakeFrontend final : public ui::CharFrontend {
public:
    std::string received;
    std::size_t capacity = SIZE_MAX; // how much more it takes
    int writable_calls = 0;
    std::vector<ui::CharEvent> events;

    std::size_t receive(std::span<std::uint8_t const> bytes) override {
        std::size_t n = std::min(bytes.size(), capacity);
        received.append(reinterpret_cast<char const*>(bytes.data()), n);
        capacity -= capacity == SIZE_MAX ? 0 : n;
        return n;
    }
    void writable() override { ++writable_calls; }
    void event(ui::CharEvent what) override { events.push_back(what); }
    bool saw(ui::CharEvent what) const { return std::ranges::find(events, what) != events.end(); }
};

class FakeStream final : public ui::CharStream {
public:
    std::string written;
    std::size_t room = SIZE_MAX;
    ui::CharFrontend* frontend = nullptr;

    std::size_t write(std::span<std::uint8_t const> bytes) override {
        std::size_t n = std::min(bytes.size(), room);
        written.append(reinterpret_cast<char const*>(bytes.data()), n);
        room -= room == SIZE_MAX ? 0 : n;
        return n;
    }
    void accept_input() override {}
    void set_frontend(ui::CharFrontend* f) override { frontend = f; }
    void send_break(bool) override {}
    void drain() override {}
    // What the user types.
    std::size_t type(std::string_view text) { return frontend->receive(bytes_of(text)); }
};

} // namespace vmm::test
