// IoSession: the image vmm-io works on and the requests in flight.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/image.h"
#include "block/core/sync.h"
#include "block/tools/common/tool.h"

#include <memory>
#include <span>
#include <string>
#include <vector>

namespace vmm::block {

class IoSession;

// One command of the language. `words[0]` is the command's name as typed. Answers 0, or a negative errno: the process
// ends with 1 if any command failed.
struct IoCommand {
    std::string_view name, alias;
    int (*run)(IoSession& session, std::span<std::string const> words);
    int least_arguments = 0;
    int most_arguments = 0; // -1: any number
    bool needs_file = true, needs_write = false;
    std::string_view synopsis; // "[-q] off len"
    std::string_view summary;  // one line
    std::string_view help;     // the rest of `help NAME`; empty: none
};
std::span<IoCommand const> io_commands(); // sorted by name

// Main thread only.
class IoSession {
public:
    explicit IoSession(Tool& tool) : tool_(tool) {}
    ~IoSession();

    Tool& tool() { return tool_; }
    // Null: no file is open.
    Image* image() { return image_.get(); }
    OpenOptions const& options() const { return options_; }
    // Opens by `options` (locks and all); reports what is wrong and answers false.
    bool open(OpenOptions options);
    // -C: what reads take from a backing file is kept in the image, by whole clusters. For read() below.
    void set_copy_on_read(bool on) { copy_on_read_ = on; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to);
    // Waits for the requests in flight, then closes.
    Result<void> close();

    // Splits and runs one line.
    int execute(std::string const& line);
    bool finished() const { return finished_; }
    void finish() { finished_ = true; }

    // An asynchronous request in the background (aio_*).
    void start(Task<void> work);
    // Waits for all of them.
    void drain();
    // A file to delete when the session ends.
    void own_temporary(std::string path) { temporaries_.push_back(std::move(path)); }

private:
    Task<Result<void>> copy_up(std::uint64_t offset, std::uint64_t length);

    Tool& tool_;
    OpenOptions options_;
    std::unique_ptr<Image> image_;
    std::vector<std::string> temporaries_;
    unsigned in_flight_ = 0;
    bool finished_ = false, copy_on_read_ = false;
};

int io_abort(IoSession&, std::span<std::string const>);
int io_aio_flush(IoSession&, std::span<std::string const>);
int io_aio_read(IoSession&, std::span<std::string const>);
int io_aio_write(IoSession&, std::span<std::string const>);
int io_alloc(IoSession&, std::span<std::string const>);
int io_break(IoSession&, std::span<std::string const>);
int io_close(IoSession&, std::span<std::string const>);
int io_discard(IoSession&, std::span<std::string const>);
int io_flush(IoSession&, std::span<std::string const>);
int io_help(IoSession&, std::span<std::string const>);
int io_info(IoSession&, std::span<std::string const>);
int io_length(IoSession&, std::span<std::string const>);
int io_map(IoSession&, std::span<std::string const>);
int io_open(IoSession&, std::span<std::string const>);
int io_quit(IoSession&, std::span<std::string const>);
int io_read(IoSession&, std::span<std::string const>);
int io_readv(IoSession&, std::span<std::string const>);
int io_remove_break(IoSession&, std::span<std::string const>);
int io_reopen(IoSession&, std::span<std::string const>);
int io_resume(IoSession&, std::span<std::string const>);
int io_sigraise(IoSession&, std::span<std::string const>);
int io_sleep(IoSession&, std::span<std::string const>);
int io_truncate(IoSession&, std::span<std::string const>);
int io_wait_break(IoSession&, std::span<std::string const>);
int io_write(IoSession&, std::span<std::string const>);
int io_writev(IoSession&, std::span<std::string const>);

// "NAME [..] -- summary".
std::string io_one_line_help(IoCommand const& command);

} // namespace vmm::block
