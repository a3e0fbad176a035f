#include "ui/chardev/mux.h"

#include <fmt/core.h>

#include <algorithm>

namespace vmm::ui {

namespace {
constexpr std::size_t step = 1024; // how much of a channel's output is taken in before the host stream is asked again
std::span<std::uint8_t const> bytes_of(std::string_view text) {
    return {reinterpret_cast<std::uint8_t const*>(text.data()), text.size()};
}
} // namespace

class Mux::Channel final : public CharStream {
public:
    explicit Channel(Mux& mux) : mux_(mux) {}

    std::size_t write(std::span<std::uint8_t const> bytes) override { return mux_.write_from(*this, bytes); }
    void accept_input() override {
        mux_.loop_.post([this, alive = mux_.alive_] {
            if (!*alive) return;
            deliver();
            if (input_.size() < input_limit) mux_.host_->accept_input();
        });
    }
    void set_frontend(CharFrontend* frontend) override {
        frontend_ = frontend;
        if (frontend) accept_input();
    }
    void send_break(bool) override {}
    void drain() override { mux_.drain(); }

    void event(CharEvent what) {
        if (frontend_) frontend_->event(what);
    }
    void writable() {
        bool tell;
        {
            MutexLock lock(mux_.mutex_);
            tell = std::exchange(starved_, false);
        }
        if (tell && frontend_) frontend_->writable();
    }
    bool full() const { return input_.size() >= input_limit; }
    void type(std::uint8_t byte) { input_.push_back(byte); }
    void deliver() {
        while (frontend_ && !input_.empty()) {
            std::size_t n = frontend_->receive(input_);
            if (n == 0) return;
            input_.erase(input_.begin(), input_.begin() + std::ptrdiff_t(std::min(n, input_.size())));
        }
    }
    void set_starved() { starved_ = true; } // under the mux's mutex

private:
    Mux& mux_;
    CharFrontend* frontend_ = nullptr;
    std::vector<std::uint8_t> input_;
    bool starved_ = false; // guarded by the mux's mutex
};

Mux::Mux(EventLoop& loop, std::unique_ptr<CharStream> host, Options options)
    : loop_(loop), host_(std::move(host)), options_(std::move(options)) {
    host_->set_frontend(this);
}

Mux::~Mux() {
    *alive_ = false;
    host_->set_frontend(nullptr);
}

CharStream& Mux::add_channel() {
    channels_.push_back(std::make_unique<Channel>(*this));
    return *channels_.back();
}

std::size_t Mux::receive(std::span<std::uint8_t const> bytes) {
    if (channels_.empty()) return 0;
    std::size_t done = 0;
    for (std::uint8_t byte : bytes) {
        if (escaped_) {
            escaped_ = false;
            if (byte == std::uint8_t(options_.escape))
                channels_[focus_]->type(byte);
            else
                escape_command(byte);
        } else if (byte == std::uint8_t(options_.escape)) {
            escaped_ = true;
        } else {
            if (channels_[focus_]->full()) break;
            channels_[focus_]->type(byte);
        }
        ++done;
    }
    channels_[focus_]->deliver();
    return done;
}

void Mux::escape_command(std::uint8_t key) {
    switch (key) {
    case 'h':
    case '?': show(help()); break;
    case 'x':
        show("QEMU: Terminated\n\r");
        host_->drain();
        if (options_.quit) options_.quit();
        break;
    case 's': {
        std::size_t count = options_.commit_drives ? options_.commit_drives() : 0;
        show(fmt::format("committed {} disk{}\r\n", count, count == 1 ? "" : "s"));
        break;
    }
    case 'b': channels_[focus_]->event(CharEvent::serial_break); break;
    case 'c': switch_focus(); break;
    case 't': {
        MutexLock lock(mutex_);
        stamps_ = !stamps_;
        stamp_start_ = -1;
        line_start_ = false; // stamps begin with the next line
        break;
    }
    default: break; // like QEMU, an unknown key is swallowed
    }
}

void Mux::switch_focus() {
    channels_[focus_]->deliver();
    channels_[focus_]->event(CharEvent::focus_lost);
    focus_ = (focus_ + 1) % channels_.size();
    channels_[focus_]->event(CharEvent::focus_gained);
}

std::string Mux::help() const {
    constexpr std::string_view lines[] = {
        "%    print this help\n\r",
        "%    exit emulator\n\r",
        "%    save disk data back to file (if -snapshot)\n\r",
        "%    toggle console timestamps\n\r",
        "%    send break (magic sysrq)\n\r",
        "%    switch between console and monitor\n\r",
    };
    constexpr char keys[] = {'h', 'x', 's', 't', 'b', 'c'};
    unsigned char escape = static_cast<unsigned char>(options_.escape);
    std::string name =
        escape >= 1 && escape <= 26 ? fmt::format("C-{}", char('a' + escape - 1)) : fmt::format("\\x{:02x}", escape);
    std::string text = "\n\r";
    for (std::size_t i = 0; i < std::size(keys); ++i) text += fmt::format("{} {}{}", name, keys[i], lines[i].substr(1));
    return text + fmt::format("{} {}  sends {}\n\r", name, name, name);
}

void Mux::show(std::string_view text) {
    MutexLock lock(mutex_);
    pending_ += text;
    flush();
}

bool Mux::flush() {
    if (pending_.empty()) return true;
    std::size_t n = host_->write(bytes_of(pending_));
    pending_.erase(0, n);
    return pending_.empty();
}

void Mux::add_stamped(std::uint8_t byte) {
    if (stamps_ && line_start_) {
        Nanoseconds now = options_.now ? options_.now() : 0;
        if (stamp_start_ < 0) stamp_start_ = now;
        Nanoseconds ms = (now - stamp_start_) / 1'000'000;
        pending_ +=
            fmt::format("[{:02}:{:02}:{:02}.{:03}] ", ms / 3'600'000, ms / 60'000 % 60, ms / 1000 % 60, ms % 1000);
        line_start_ = false;
    }
    pending_ += char(byte);
    if (byte == '\n') line_start_ = true;
}

std::size_t Mux::write_from(Channel& channel, std::span<std::uint8_t const> bytes) {
    MutexLock lock(mutex_);
    std::size_t done = 0;
    while (done < bytes.size()) {
        if (!flush()) {
            channel.set_starved();
            break;
        }
        std::size_t n = std::min(step, bytes.size() - done);
        for (std::uint8_t byte : bytes.subspan(done, n)) add_stamped(byte);
        done += n;
        flush();
    }
    return done;
}

void Mux::writable() {
    {
        MutexLock lock(mutex_);
        if (!flush()) return; // the host stream calls again
    }
    for (auto& channel : channels_) channel->writable();
}

void Mux::event(CharEvent what) {
    if (channels_.empty()) return;
    // Breaks and greetings are for who is being talked to; that the other side has gone is for all.
    if (what != CharEvent::closed) return channels_[focus_]->event(what);
    for (auto& channel : channels_) channel->event(what);
}

} // namespace vmm::ui
