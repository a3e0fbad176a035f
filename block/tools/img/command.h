// The commands of vmm-img: one function each, one file each.
#pragma once
#include "block/tools/common/arguments.h"
#include "block/tools/common/image_opening.h"
#include "block/tools/common/progress.h"
#include "block/tools/common/tool.h"

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::block {

// Words after the command's name; the process's exit status.
using CommandFunction = int (*)(Tool& tool, std::span<std::string const> words);
struct ImgCommand {
    std::string_view name;
    CommandFunction run;
    std::string_view synopsis; // after "  NAME "
    bool qemu_has_it = true;   // false: ours alone
};
// In the order of `--help`.
std::span<ImgCommand const> img_commands();

int run_img(Tool& tool, std::span<std::string const> words);

int img_amend(Tool& tool, std::span<std::string const> words);
int img_bench(Tool& tool, std::span<std::string const> words);
int img_bitmap(Tool& tool, std::span<std::string const> words);
int img_check(Tool& tool, std::span<std::string const> words);
int img_commit(Tool& tool, std::span<std::string const> words);
int img_compare(Tool& tool, std::span<std::string const> words);
int img_convert(Tool& tool, std::span<std::string const> words);
int img_create(Tool& tool, std::span<std::string const> words);
int img_dd(Tool& tool, std::span<std::string const> words);
int img_info(Tool& tool, std::span<std::string const> words);
int img_map(Tool& tool, std::span<std::string const> words);
int img_measure(Tool& tool, std::span<std::string const> words);
int img_mount(Tool& tool, std::span<std::string const> words);
int img_rebase(Tool& tool, std::span<std::string const> words);
int img_resize(Tool& tool, std::span<std::string const> words);
int img_snapshot(Tool& tool, std::span<std::string const> words);

// The text of `--help` and `--version`.
std::string img_help(Tool& tool);
std::string version_text(std::string_view program);

// A command line parsed against `rows` plus -h/--help and --object; reports what is wrong. Null result: end with
// `status` (help was printed, or an error reported).
struct ParsedCommand {
    Arguments args;
    int status = 0;
    bool stop = false;
};
ParsedCommand parse_command(Tool& tool, std::span<std::string const> words, std::span<OptionRow const> rows,
                            int error_status = 1);

// "--output=human|json": false for human. Error: QEMU's text.
Result<bool> wants_json(Arguments const& args);
// The `-o` values joined; "help" or "?" among them: nothing else matters.
struct DriverOptions {
    std::string text;
    bool help = false;
    bool given = false;
};
// "Invalid option list: x" for one that begins or ends with a comma.
Result<DriverOptions> driver_options(Arguments const& args);
// `parse_size` errors get QEMU's explanation of suffixes appended.
std::string size_error_text(Error const& error);

// Closes after an operation: the operation's own error counts before one of closing.
template <class T> Task<Result<T>> close_after(std::unique_ptr<Image> image, Result<T> result) {
    Result<void> closed = co_await close_image(std::move(image));
    if (result.ok() && !closed.ok()) co_return closed.error();
    co_return result;
}

} // namespace vmm::block
