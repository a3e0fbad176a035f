// WireReader: takes fields off the front of an option's or reply's payload, never past its end.
#pragma once
#include "block/nbd/protocol.h"

#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

namespace vmm::block::nbd {

class WireReader {
public:
    explicit WireReader(std::span<std::uint8_t const> data) : rest_(data) {}

    // A fixed-size structure or integer type; nullopt when too little is left.
    template <class T> std::optional<T> take() {
        static_assert(std::is_trivially_copyable_v<T>);
        if (rest_.size() < sizeof(T)) return std::nullopt;
        T value;
        std::memcpy(&value, rest_.data(), sizeof value);
        rest_ = rest_.subspan(sizeof(T));
        return value;
    }
    // `length` bytes as text; nullopt when too little is left or it is longer than the protocol allows.
    std::optional<std::string> take_text(std::size_t length) {
        if (length > rest_.size() || length > max_string_bytes) return std::nullopt;
        std::string text(reinterpret_cast<char const*>(rest_.data()), length);
        rest_ = rest_.subspan(length);
        return text;
    }
    // A be32 length and that many bytes.
    std::optional<std::string> take_string() {
        auto length = take<be32>();
        return length ? take_text(*length) : std::nullopt;
    }
    std::size_t left() const { return rest_.size(); }
    std::span<std::uint8_t const> rest() const { return rest_; }

private:
    std::span<std::uint8_t const> rest_;
};

// Appends `value`'s bytes, as they go over the wire.
template <class Container, class T> void append_wire(Container& to, T const& value) {
    static_assert(std::is_trivially_copyable_v<T>);
    auto const* bytes = reinterpret_cast<std::uint8_t const*>(&value);
    to.insert(to.end(), bytes, bytes + sizeof value);
}
template <class Container> void append_text(Container& to, std::string_view text) {
    to.insert(to.end(), text.begin(), text.end());
}

} // namespace vmm::block::nbd
