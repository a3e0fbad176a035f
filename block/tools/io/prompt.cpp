#include "block/tools/io/prompt.h"

#include <histedit.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

namespace vmm::block {

struct Prompt::Editor {
    EditLine* line = nullptr;
    History* history = nullptr;
    HistEvent event{};
};

namespace {
constexpr int history_lines = 1000;

char* prompt_of(EditLine* line) {
    Prompt const* prompt = nullptr;
    el_get(line, EL_CLIENTDATA, &prompt);
    return const_cast<char*>(prompt->text().c_str());
}
} // namespace

Prompt::Prompt(std::string prompt) : prompt_(std::move(prompt)) {
    if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) return;
    EditLine* line = el_init("vmm-io", stdin, stdout, stderr);
    if (!line) return; // a terminal it does not know: plain lines
    editor_ = new Editor{line, history_init(), {}};
    el_set(line, EL_CLIENTDATA, this);
    el_set(line, EL_PROMPT, &prompt_of);
    el_set(line, EL_EDITOR, "emacs");
    el_set(line, EL_SIGNAL, 1);
    history(editor_->history, &editor_->event, H_SETSIZE, history_lines);
    el_set(line, EL_HIST, history, editor_->history);
}

Prompt::~Prompt() {
    if (!editor_) return;
    history_end(editor_->history);
    el_end(editor_->line);
    delete editor_;
}

std::optional<std::string> Prompt::next() {
    if (editor_) {
        int length = 0;
        char const* text = el_gets(editor_->line, &length);
        if (!text || length <= 0) return std::nullopt;
        if (length > 1) history(editor_->history, &editor_->event, H_ENTER, text);
        std::string line(text, std::size_t(length));
        while (line.ends_with('\n')) line.pop_back();
        return line;
    }
    std::printf("%s", prompt_.c_str());
    std::fflush(stdout);
    char* buffer = nullptr;
    std::size_t capacity = 0;
    ssize_t length = getline(&buffer, &capacity, stdin);
    std::optional<std::string> line;
    if (length >= 0) line = std::string(buffer, std::size_t(length));
    std::free(buffer);
    if (line && line->ends_with('\n')) line->pop_back();
    return line;
}

} // namespace vmm::block
