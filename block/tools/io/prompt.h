// Lines typed by a user (with editing and history on a terminal) or piped in.
#pragma once
#include <optional>
#include <string>

namespace vmm::block {

// The next line, without its end; nothing at the end of input. Prints `prompt` first.
class Prompt {
public:
    explicit Prompt(std::string prompt);
    ~Prompt();
    Prompt(Prompt const&) = delete;
    Prompt& operator=(Prompt const&) = delete;
    std::optional<std::string> next();

    // What the editor asks back.
    std::string const& text() const { return prompt_; }

private:
    struct Editor;
    std::string prompt_;
    Editor* editor_ = nullptr; // owned; null: not a terminal
};

} // namespace vmm::block
