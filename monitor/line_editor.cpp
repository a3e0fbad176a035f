#include "monitor/line_editor.h"

#include <algorithm>

namespace vmm::monitor {

LineEditor::LineEditor(std::string prompt, Hooks hooks) : prompt_(std::move(prompt)), hooks_(std::move(hooks)) {}

void LineEditor::show_prompt() {
    hooks_.output(prompt_ + line_);
    hooks_.output(std::string(line_.size() - cursor_, '\b'));
}

void LineEditor::clear() {
    line_.clear();
    cursor_ = 0;
    recalled_ = history_.size();
}

void LineEditor::type(std::uint8_t byte) {
    bool was_cr = after_cr_;
    after_cr_ = byte == '\r';
    switch (state_) {
    case State::escape: state_ = byte == '[' ? State::csi : byte == 'O' ? State::ss3 : State::ground; return;
    case State::ss3: state_ = State::ground; return escape_sequence(char(byte));
    case State::csi:
        if (byte >= '0' && byte <= '9') {
            if (parameter_ < 1000) parameter_ = parameter_ * 10 + (byte - '0');
        } else if (byte >= 0x40) {
            state_ = State::ground;
            escape_sequence(char(byte));
        }
        return;
    case State::ground: break;
    }
    switch (byte) {
    case 0x1b: state_ = State::escape, parameter_ = 0; break;
    case '\r': enter(); break;
    case '\n':
        if (!was_cr) enter();
        break;
    case '\t': complete(); break;
    case 0x7f:
    case '\b':
        if (cursor_ > 0) erase(cursor_ - 1, 1);
        break;
    case 'A' - '@': move_to(0); break;
    case 'E' - '@': move_to(line_.size()); break;
    case 'B' - '@': move_to(cursor_ - (cursor_ > 0)); break;
    case 'F' - '@': move_to(cursor_ + 1); break;
    case 'D' - '@': erase(cursor_, 1); break;
    case 'K' - '@': erase(cursor_, line_.size()); break;
    case 'U' - '@': erase(0, cursor_); break;
    case 'P' - '@': recall(-1); break;
    case 'N' - '@': recall(+1); break;
    case 'W' - '@': {
        std::size_t start = cursor_;
        while (start > 0 && line_[start - 1] == ' ') --start;
        while (start > 0 && line_[start - 1] != ' ') --start;
        erase(start, cursor_ - start);
        break;
    }
    default:
        if (byte >= 0x20) {
            char c = char(byte);
            insert({&c, 1});
        }
    }
}

void LineEditor::escape_sequence(char final) {
    switch (final) {
    case 'A': recall(-1); break;
    case 'B': recall(+1); break;
    case 'C': move_to(cursor_ + 1); break;
    case 'D': move_to(cursor_ - (cursor_ > 0)); break;
    case 'H': move_to(0); break;
    case 'F': move_to(line_.size()); break;
    case '~':
        if (parameter_ == 3)
            erase(cursor_, 1);
        else if (parameter_ == 1 || parameter_ == 7)
            move_to(0);
        else if (parameter_ == 4 || parameter_ == 8)
            move_to(line_.size());
        break;
    default: break;
    }
}

void LineEditor::enter() {
    hooks_.output("\r\n");
    std::string line = std::move(line_);
    if (!line.empty() && (history_.empty() || history_.back() != line)) {
        if (history_.size() == max_history) history_.erase(history_.begin());
        history_.push_back(line);
    }
    clear();
    hooks_.line(line);
}

void LineEditor::insert(std::string_view text) {
    text = text.substr(0, max_line - std::min(max_line, line_.size()));
    line_.insert(cursor_, text);
    cursor_ += text.size();
    hooks_.output(text);
    if (cursor_ < line_.size()) redraw_tail();
}

void LineEditor::erase(std::size_t from, std::size_t count) {
    if (from >= line_.size() || count == 0) return;
    move_to(from);
    line_.erase(from, count);
    redraw_tail();
}

void LineEditor::move_to(std::size_t position) {
    position = std::min(position, line_.size());
    if (position < cursor_)
        hooks_.output(std::string(cursor_ - position, '\b'));
    else
        hooks_.output(std::string_view(line_).substr(cursor_, position - cursor_));
    cursor_ = position;
}

void LineEditor::redraw_tail() {
    std::string_view tail = std::string_view(line_).substr(cursor_);
    hooks_.output(tail);
    hooks_.output("\x1b[K");
    hooks_.output(std::string(tail.size(), '\b'));
}

void LineEditor::replace(std::string text) {
    move_to(0);
    line_ = std::move(text);
    redraw_tail();
    move_to(line_.size());
}

void LineEditor::recall(int step) {
    if (step < 0 ? recalled_ == 0 : recalled_ >= history_.size()) return;
    if (recalled_ == history_.size()) typed_ = line_;
    recalled_ += std::size_t(step);
    replace(recalled_ == history_.size() ? typed_ : history_[recalled_]);
}

void LineEditor::complete() {
    std::string_view before = std::string_view(line_).substr(0, cursor_);
    std::vector<std::string> words = hooks_.complete(before);
    if (words.empty()) return;
    std::size_t start = before.rfind(' ') == std::string_view::npos ? 0 : before.rfind(' ') + 1;
    std::string common = words.front();
    for (std::string const& word : words)
        common.resize(std::size_t(std::ranges::mismatch(common, word).in1 - common.begin()));
    if (words.size() == 1) common += ' ';
    std::size_t have = cursor_ - start;
    if (common.size() > have) return insert(common.substr(have));
    hooks_.output("\r\n");
    for (std::string const& word : words) hooks_.output(word + "\r\n");
    show_prompt();
}

} // namespace vmm::monitor
