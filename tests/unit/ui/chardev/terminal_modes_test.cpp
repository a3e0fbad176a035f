#include "tests/support/fake_frontend.h"
#include "ui/chardev/terminal_modes.h"

#include <gtest/gtest.h>

using namespace vmm;
using namespace vmm::ui;
using namespace vmm::test;

namespace {
std::string undo_after(std::string_view output) {
    TerminalModes modes;
    for (char c : output) modes.feed(bytes_of({&c, 1})); // sequences may come in pieces
    std::array<char, TerminalModes::max_undo> buffer;
    return std::string(modes.undo(buffer));
}
std::string const always = "\x1b[?7h\x1b[0m\x1b[?25h";
} // namespace

TEST(TerminalModes, nothing_written_needs_nothing_undone) { EXPECT_EQ(undo_after(""), ""); }

TEST(TerminalModes, wrap_colour_and_cursor_are_always_undone) {
    EXPECT_EQ(undo_after("\x1b"
                         "c\x1b[?7l\x1b[2JSeaBIOS"),
              always);
}

TEST(TerminalModes, the_alternate_screen_is_left_only_if_it_was_entered) {
    EXPECT_EQ(undo_after("\x1b[?1049h"), always + "\x1b[?1049l");
    EXPECT_EQ(undo_after("\x1b[?1049h\x1b[?1049l"), always);
    EXPECT_EQ(undo_after("\x1b[?1;1000;2004h"), always + "\x1b[?1l\x1b[?1000l\x1b[?2004l");
}

TEST(TerminalModes, a_scroll_region_is_undone_without_moving_the_cursor) {
    EXPECT_EQ(undo_after("\x1b[1;20r"), always + "\x1b"
                                                 "7\x1b[r\x1b"
                                                 "8");
    EXPECT_EQ(undo_after("\x1b[1;20r\x1b[r"), always);
}

TEST(TerminalModes, hostile_output_is_survived) {
    std::string text = "\x1b[?";
    for (int i = 0; i < 100; ++i) text += "99999999999999;";
    EXPECT_EQ(undo_after(text + "h\x1b\x1b\x1b[\x1b[?25"), always);
}
