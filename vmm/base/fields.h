// State fields: the one place a component names what it saves. The same list writes, reads, validates and prints.
//
//     struct State { std::uint8_t ier = 0; std::array<std::uint8_t, 16> fifo{}; std::uint64_t deadline = 0; };
//     template <class V> void fields(V& v, State& s) { v.field("ier", s.ier); v.field("fifo", s.fifo);
//     v.field("deadline", s.deadline, Since{2}); }
//
// Stream format: fields are {name length u8, name, type u8, element size u8, count u32 LE, bytes LE}; a reader finds
// fields by name, ignores unknown ones only when their name starts with '?', and refuses everything else that does not
// match.
#pragma once
#include "vmm/base/result.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

namespace vmm {

// The format version of a component in which a field appeared; older streams leave the field at its default.
struct Since {
    unsigned version = 1;
};

template <class T>
concept StateScalar = std::is_integral_v<T> || std::is_enum_v<T> || std::is_floating_point_v<T>;

// Serialises fields into bytes. Not thread-safe.
class StateWriter {
public:
    template <StateScalar T> void field(std::string_view name, T const& value, Since = {}) {
        raw(name, &value, sizeof value, 1);
    }
    template <StateScalar T, std::size_t N>
    void field(std::string_view name, std::array<T, N> const& values, Since = {}) {
        raw(name, values.data(), sizeof(T), N);
    }
    template <StateScalar T> void field(std::string_view name, std::vector<T> const& values, Since = {}) {
        raw(name, values.data(), sizeof(T), values.size());
    }
    // A nested aggregate; its fields get the prefix "name.".
    template <class S>
    requires std::is_class_v<S>
    void field(std::string_view name, S const& nested, Since = {}) {
        Prefix scope(*this, name);
        fields(*this, const_cast<S&>(nested));
    }
    template <class S, std::size_t N>
    requires std::is_class_v<S>
    void field(std::string_view name, std::array<S, N> const& nested, Since = {}) {
        for (std::size_t i = 0; i < N; ++i) field(std::string(name) + "[" + std::to_string(i) + "]", nested[i]);
    }

    std::vector<std::uint8_t> const& bytes() const { return bytes_; }
    std::vector<std::uint8_t> take() { return std::move(bytes_); }

private:
    struct Prefix {
        Prefix(StateWriter& w, std::string_view name) : writer(w), old(w.prefix_) {
            w.prefix_.append(name).push_back('.');
        }
        ~Prefix() { writer.prefix_ = old; }
        StateWriter& writer;
        std::string old;
    };
    void raw(std::string_view name, void const* data, std::size_t element_size, std::size_t count);
    std::vector<std::uint8_t> bytes_;
    std::string prefix_;
};

// Reads fields back from hostile bytes. Errors stick: read everything, then ask finish().
class StateReader {
public:
    // `bytes` must outlive the reader. Parses the index at once; a malformed stream is reported by finish().
    explicit StateReader(std::span<std::uint8_t const> bytes, unsigned version = ~0u);

    template <StateScalar T> void field(std::string_view name, T& value, Since since = {}) {
        raw(name, &value, sizeof value, 1, since);
    }
    // Any byte but 0 and 1 is refused: as a bool it would be undefined behaviour.
    void field(std::string_view name, bool& value, Since since = {}) {
        std::uint8_t byte = value;
        raw(name, &byte, 1, 1, since);
        if (byte > 1) return refuse(name, "is neither 0 nor 1");
        value = byte != 0;
    }
    template <StateScalar T, std::size_t N>
    void field(std::string_view name, std::array<T, N>& values, Since since = {}) {
        raw(name, values.data(), sizeof(T), N, since);
    }
    // At most `max_elements` elements are accepted.
    template <StateScalar T> void field(std::string_view name, std::vector<T>& values, Since since = {}) {
        std::size_t count = count_of(name, sizeof(T), since);
        values.resize(count);
        if (count)
            raw(name, values.data(), sizeof(T), count, since);
        else
            consume(name);
    }
    template <class S>
    requires std::is_class_v<S>
    void field(std::string_view name, S& nested, Since = {}) {
        std::string old = prefix_;
        prefix_.append(name).push_back('.');
        fields(*this, nested);
        prefix_ = old;
    }
    template <class S, std::size_t N>
    requires std::is_class_v<S>
    void field(std::string_view name, std::array<S, N>& nested, Since = {}) {
        for (std::size_t i = 0; i < N; ++i) field(std::string(name) + "[" + std::to_string(i) + "]", nested[i]);
    }
    // Records a refusal of our own: "field NAME: why".
    void refuse(std::string_view name, std::string_view why);

    static constexpr std::size_t max_elements = 16 * 1024 * 1024;

    // Ok when every asked field was present and fitting and nothing unknown was left over.
    Result<void> finish() const;

private:
    struct Entry {
        std::string name;
        std::uint8_t element_size;
        std::uint32_t count;
        std::span<std::uint8_t const> data;
        bool used = false;
    };
    Entry* find(std::string const& full_name);
    std::size_t count_of(std::string_view name, std::size_t element_size, Since since);
    void consume(std::string_view name);
    void raw(std::string_view name, void* data, std::size_t element_size, std::size_t count, Since since);
    std::vector<Entry> entries_;
    std::size_t next_ = 0; // fields usually come back in the order written
    unsigned version_;
    std::string prefix_;
    std::string error_;
};

// save() and load() for a component whose state is `State` with a `fields` function beside it.
template <class State> void save_state(StateWriter& to, State const& state) { fields(to, const_cast<State&>(state)); }
template <class State> Result<State> load_state(StateReader& from, State const& defaults = {}) {
    State state = defaults;
    fields(from, state);
    TRY(from.finish());
    return state;
}

} // namespace vmm
