#include "monitor/line_editor.h"

#include <gtest/gtest.h>

using namespace vmm::monitor;

namespace {
// An editor and what its terminal shows: one row of text and a cursor, moved as a VT100 would.
struct LineEditorTest : testing::Test {
    std::vector<std::string> lines;
    std::string row;
    std::size_t column = 0;
    LineEditor editor{"> ",
                      {.output = [this](std::string_view text) { show(text); },
                       .line = [this](std::string const& line) { lines.push_back(line), editor.show_prompt(); },
                       .complete = [](std::string_view) { return std::vector<std::string>{}; }}};
    void SetUp() override { editor.show_prompt(); }
    void show(std::string_view text) {
        for (std::size_t i = 0; i < text.size(); ++i) {
            if (text[i] == '\b')
                --column;
            else if (text[i] == '\n')
                row.clear(), column = 0;
            else if (text.substr(i, 3) == "\x1b[K")
                row.resize(column), i += 2;
            else if (text[i] != '\r') {
                row.resize(std::max(row.size(), column + 1));
                row[column++] = text[i];
            }
        }
    }
    void type(std::string_view text) {
        for (char c : text) editor.type(std::uint8_t(c));
    }
};
} // namespace

TEST_F(LineEditorTest, what_is_shown_is_what_is_edited) {
    type("helo\x1b[Dl");
    EXPECT_EQ(row, "> hello");
    EXPECT_EQ(column, 6u);
    type("\x01say \x05 you");
    EXPECT_EQ(row, "> say hello you");
    type("\x17\x7f");
    EXPECT_EQ(row, "> say hello");
    type("\x1b[H\x1b[3~\x04\x0b");
    EXPECT_EQ(row, "> ");
    type("x\r");
    EXPECT_EQ(lines, std::vector<std::string>{"x"});
}

TEST_F(LineEditorTest, history_goes_back_and_forth_and_keeps_the_unfinished_line) {
    type("one\rtwo\rtwo\rthr");
    type("\x1b[A");
    EXPECT_EQ(row, "> two");
    type("\x1bOA");
    EXPECT_EQ(row, "> one");
    type("\x10\x1b[B\x1b[B");
    EXPECT_EQ(row, "> thr");
    EXPECT_EQ(editor.history().size(), 2u) << "a repeated line is kept once";
}

TEST_F(LineEditorTest, cr_lf_is_one_line_end) {
    type("a\r\nb\n");
    EXPECT_EQ(lines, (std::vector<std::string>{"a", "b"}));
}

TEST_F(LineEditorTest, a_line_has_a_longest) {
    type(std::string(10000, 'a') + "\r");
    EXPECT_EQ(lines[0].size(), LineEditor::max_line);
}
