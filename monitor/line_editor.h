// LineEditor: editing one line over a byte stream: cursor, history, completion. Speaks to VT100-like terminals, and
// works over a socket or a mux channel as well as on a terminal, which is why it is not libedit (that wants a tty of
// its own).
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::monitor {

// One thread. Bytes in, text out through the hooks; "\r\n" ends what is shown of a line.
class LineEditor {
public:
    static constexpr std::size_t max_line = 4095, max_history = 64;
    struct Hooks {
        std::function<void(std::string_view)> output;
        std::function<void(std::string const&)> line; // Enter: the finished line
        // What the word that ends at the end of `text` may become; whole words.
        std::function<std::vector<std::string>(std::string_view text)> complete;
    };
    LineEditor(std::string prompt, Hooks hooks);

    // Shows the prompt and what has been typed so far.
    void show_prompt();
    // Forgets what has been typed; the history stays.
    void clear();
    void type(std::uint8_t byte);
    std::vector<std::string> const& history() const { return history_; }

private:
    void escape_sequence(char final);
    void enter();
    void insert(std::string_view text);
    void erase(std::size_t from, std::size_t count);
    void move_to(std::size_t position);
    void replace(std::string text);
    void recall(int step);
    void complete();
    void redraw_tail();

    std::string prompt_;
    Hooks hooks_;
    std::string line_;
    std::size_t cursor_ = 0;
    std::vector<std::string> history_;
    std::size_t recalled_ = 0; // index into history_; history_.size(): the line being typed
    std::string typed_;        // that line while an older one is shown
    enum class State : std::uint8_t { ground, escape, csi, ss3 } state_ = State::ground;
    unsigned parameter_ = 0;
    bool after_cr_ = false;
};

} // namespace vmm::monitor
