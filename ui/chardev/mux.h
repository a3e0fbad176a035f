// Mux: several front ends on one stream, switched and served by an escape key (Ctrl-a).
#pragma once
#include "ui/chardev/char_stream.h"
#include "vmm/base/clock.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/thread_annotations.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace vmm::ui {

// Loop thread, except that channels' write() and accept_input() are for any thread (CharStream). What is typed goes to
// the channel with the focus, at first the one made first; what any channel writes is shown.
class Mux final : private CharFrontend {
public:
    struct Options {
        char escape = 0x01;
        std::function<void()> quit;                 // Ctrl-a x
        std::function<std::size_t()> commit_drives; // Ctrl-a s: how many disks were written back
        std::function<Nanoseconds()> now;           // for Ctrl-a t; monotonic
    };
    Mux(EventLoop& loop, std::unique_ptr<CharStream> host, Options options);
    ~Mux() override;

    // A new channel; lives as long as the mux.
    CharStream& add_channel();
    void drain() { host_->drain(); }

    // Input kept for a channel whose front end is busy; beyond this the host side is held back.
    static constexpr std::size_t input_limit = 64 * 1024;

private:
    class Channel;
    std::size_t receive(std::span<std::uint8_t const> bytes) override;
    void writable() override;
    void event(CharEvent what) override;

    void escape_command(std::uint8_t key);
    void switch_focus();
    void show(std::string_view text); // our own words, before what channels write next
    std::string help() const;
    std::size_t write_from(Channel& channel, std::span<std::uint8_t const> bytes);
    // Gives host_ what is pending; true when nothing is left.
    bool flush() VMM_REQUIRES(mutex_);
    void add_stamped(std::uint8_t byte) VMM_REQUIRES(mutex_);

    EventLoop& loop_;
    std::unique_ptr<CharStream> host_;
    Options options_;
    std::vector<std::unique_ptr<Channel>> channels_;
    std::size_t focus_ = 0;
    bool escaped_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);

    Mutex mutex_;                                // after the device lock, before the host stream's
    std::string pending_ VMM_GUARDED_BY(mutex_); // to be written before anything else
    bool stamps_ VMM_GUARDED_BY(mutex_) = false, line_start_ VMM_GUARDED_BY(mutex_) = true;
    Nanoseconds stamp_start_ VMM_GUARDED_BY(mutex_) = -1;
};

} // namespace vmm::ui
