#include "vmm/base/fields.h"

#include <gtest/gtest.h>

using namespace vmm;

namespace {
struct Inner {
    std::uint16_t x = 0;
};
template <class V> void fields(V& v, Inner& s) { v.field("x", s.x); }
struct State {
    std::uint8_t ier = 1;
    bool flag = false;
    std::array<std::uint32_t, 3> words{};
    std::vector<std::uint8_t> bytes;
    std::array<Inner, 2> inner{};
    std::uint64_t late = 7;
};
template <class V> void fields(V& v, State& s) {
    v.field("ier", s.ier);
    v.field("flag", s.flag);
    v.field("words", s.words);
    v.field("bytes", s.bytes);
    v.field("inner", s.inner);
    v.field("late", s.late, Since{2});
}
std::vector<std::uint8_t> saved(State const& s) {
    StateWriter writer;
    save_state(writer, s);
    return writer.take();
}
} // namespace

TEST(Fields, what_is_written_is_read_back) {
    State s{.ier = 9, .flag = true, .words = {1, 2, 3}, .bytes = {4, 5}, .inner = {{{6}, {7}}}, .late = 8};
    auto bytes = saved(s);
    StateReader reader(bytes);
    State r = load_state<State>(reader).value();
    EXPECT_EQ(saved(r), bytes);
    EXPECT_EQ(r.inner[1].x, 7);
}

TEST(Fields, every_truncation_is_refused) {
    auto bytes = saved(State{});
    for (std::size_t n = 0; n < bytes.size(); ++n) {
        StateReader reader{std::span(bytes).first(n)};
        EXPECT_FALSE(load_state<State>(reader).ok()) << n;
    }
}

TEST(Fields, an_older_version_leaves_newer_fields_at_their_default) {
    StateWriter writer;
    State s;
    writer.field("ier", s.ier);
    writer.field("flag", s.flag);
    writer.field("words", s.words);
    writer.field("bytes", s.bytes);
    writer.field("inner", s.inner);
    StateReader old(writer.bytes(), 1);
    EXPECT_EQ(load_state<State>(old).value().late, 7u);
    StateReader current(writer.bytes(), 2);
    EXPECT_EQ(load_state<State>(current).error().message(), "field 'late': is missing");
}

TEST(Fields, an_unknown_field_or_another_size_is_refused_by_name) {
    auto bytes = saved(State{});
    bytes.insert(bytes.end(), {3, 'n', 'e', 'w', 1, 1, 0, 0, 0, 0});
    StateReader extra(bytes);
    EXPECT_EQ(load_state<State>(extra).error().message(), "field 'new' is unknown here");
}
