#include "monitor/monitor.h"

namespace vmm::monitor {

Monitor::Monitor(Needs needs)
    : needs_(std::move(needs)),
      editor_("(qemu) ", {.output = [this](std::string_view text) { send(text); },
                          .line =
                              [this](std::string const& line) {
                                  print(execute(line));
                                  editor_.show_prompt();
                              },
                          .complete = [this](std::string_view text) { return complete(text); }}) {
    needs_.stream.set_frontend(this);
}

Monitor::~Monitor() { needs_.stream.set_frontend(nullptr); }

std::string Monitor::execute(std::string_view line) {
    std::size_t start = line.find_first_not_of(" \t");
    if (start == std::string_view::npos) return "";
    line.remove_prefix(start);
    // A format may follow its command without a blank: x/4xw.
    std::size_t end = std::min(line.find_first_of(" \t/"), line.size());
    std::string_view word = line.substr(0, end), rest = line.substr(end);
    Command const* command = find_command(word);
    if (!command) return fmt::format("unknown command: '{}'\n", line.substr(0, line.find_first_of(" \t")));
    if (!command->handler) return fmt::format("Error: {} is not built yet\n", command->name);
    Context context{.machine = needs_.machine,
                    .log = needs_.log,
                    .version = needs_.version,
                    .vm_name = needs_.vm_name,
                    .cpu = cpu_,
                    .format = format_,
                    .history = editor_.history(),
                    .out = {}};
    auto arguments = parse_arguments(*command, rest, context);
    if (!arguments) return fmt::format("{}\nTry \"help {}\" for more information\n", arguments.error().message(), word);
    command->handler(context, *arguments);
    return context.out;
}

std::vector<std::string> Monitor::complete(std::string_view text) const {
    std::vector<std::string> words;
    std::size_t blank = text.find(' ');
    std::string_view first = text.substr(0, blank);
    Command const* command = blank == std::string_view::npos ? nullptr : find_command(first);
    std::string_view last = text.substr(text.rfind(' ') + 1); // npos + 1 is 0
    auto offer = [&](std::string_view word) {
        if (word.starts_with(last)) words.emplace_back(word);
    };
    if (!command || command->name == "help") {
        if (blank != std::string_view::npos && !command) return words;
        for (Command const& row : command_table())
            if (row.handler) offer(row.name);
    } else if (command->name == "info") {
        for (std::string const& topic : info_names(needs_.machine)) offer(topic);
    }
    return words;
}

void Monitor::greet() {
    greeted_ = true;
    editor_.clear();
    print(fmt::format("VMM {} monitor - type 'help' for more information\n", needs_.version));
    editor_.show_prompt();
}

std::size_t Monitor::receive(std::span<std::uint8_t const> bytes) {
    std::size_t done = 0;
    for (; done < bytes.size() && pending_.size() < output_limit; ++done) editor_.type(bytes[done]);
    return done;
}

void Monitor::writable() {
    bool held = pending_.size() >= output_limit;
    send({});
    if (held && pending_.size() < output_limit) needs_.stream.accept_input();
}

void Monitor::event(ui::CharEvent what) {
    switch (what) {
    case ui::CharEvent::opened: greet(); break;
    case ui::CharEvent::closed: pending_.clear(); break;
    case ui::CharEvent::focus_gained: greeted_ ? editor_.show_prompt() : greet(); break;
    case ui::CharEvent::focus_lost:
        if (greeted_) print("\n");
        break;
    case ui::CharEvent::serial_break: break; // nothing for a monitor to do
    }
}

void Monitor::print(std::string_view text) {
    std::string lines;
    for (char c : text) {
        if (c == '\n') lines += '\r';
        lines += c;
    }
    send(lines);
}

void Monitor::send(std::string_view text) {
    pending_ += text;
    while (!pending_.empty()) {
        std::size_t n = needs_.stream.write({reinterpret_cast<std::uint8_t const*>(pending_.data()), pending_.size()});
        if (n == 0) return; // writable() goes on
        pending_.erase(0, n);
    }
}

} // namespace vmm::monitor
