// The language of vmm-io: names, arities and help of all commands.
#include "block/tools/io/session.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace vmm::block {

namespace {

constexpr int any = -1;

constexpr std::string_view read_help = "\n 'read -v 512 1k' dumps 1 KiB from byte 512 on.\n\n"
                                       " -b, -- the VM state area instead of the disk\n"
                                       " -C, -- statistics as comma separated values\n"
                                       " -P, -- every byte read must be this pattern byte\n"
                                       " -s, -- first byte to verify, from the start of the read (with -P)\n"
                                       " -l, -- bytes to verify (with -P)\n"
                                       " -p, -- ignored\n"
                                       " -q, -- no statistics\n"
                                       " -v, -- dump what was read\n";
constexpr std::string_view write_help = "\n 'write 512 1k' writes 1 KiB of the byte 0xcd from byte 512 on.\n\n"
                                        " -b, -- the VM state area instead of the disk\n"
                                        " -c, -- compressed clusters\n"
                                        " -C, -- statistics as comma separated values\n"
                                        " -f, -- on stable storage when the command ends\n"
                                        " -n, -- with -z, no slow fallback\n"
                                        " -p, -- ignored\n"
                                        " -P, -- the byte to write\n"
                                        " -q, -- no statistics\n"
                                        " -s, -- repeat the content of a file\n"
                                        " -u, -- with -z, storage may be given back\n"
                                        " -z, -- write zeroes\n";
constexpr std::string_view aio_help =
    "\n The command ends when the request has been sent; its result is printed when it\n"
    " arrives and does not count as a failure. aio_flush waits for all.\n";

constexpr IoCommand commands[] = {
    {"abort", "", io_abort, 0, 0, false, false, "", "simulate a program crash using abort(3)", ""},
    {"aio_flush", "", io_aio_flush, 0, 0, false, false, "", "completes all outstanding aio requests", ""},
    {"aio_read", "", io_aio_read, 2, any, true, false, "[-Ciqv] [-P pattern] off len [len..]",
     "asynchronously reads a number of bytes", aio_help},
    {"aio_write", "", io_aio_write, 2, any, true, true, "[-Cfiquz] [-P pattern] off len [len..]",
     "asynchronously writes a number of bytes", aio_help},
    {"alloc", "a", io_alloc, 1, 2, true, false, "offset [count]", "checks if offset is allocated in the file", ""},
    {"break", "", io_break, 2, 2, true, false, "event tag",
     "sets a breakpoint on event and tags the stopped request as tag", ""},
    {"close", "c", io_close, 0, 0, true, false, "", "close the current open file", ""},
    {"discard", "d", io_discard, 2, any, true, true, "[-Cq] off len",
     "discards a number of bytes at a specified offset", ""},
    {"flush", "f", io_flush, 0, 0, true, false, "", "flush all in-core file state to disk", ""},
    {"help", "?", io_help, 0, 1, false, false, "[command]", "help for one or all commands", ""},
    {"info", "i", io_info, 0, 0, true, false, "", "prints information about the current file", ""},
    {"length", "l", io_length, 0, 0, true, false, "", "gets the length of the current file", ""},
    {"map", "", io_map, 0, 0, true, false, " ", "prints the allocated areas of a file", ""},
    {"open", "o", io_open, 1, any, false, false, "[-rsCnkU] [-t cache] [-d discard] [-o options] [path]",
     "open the file specified by path", ""},
    {"quit", "q", io_quit, 0, 0, false, false, "", "exit the program", ""},
    {"read", "r", io_read, 2, any, true, false, "[-abCqv] [-P pattern [-s off] [-l len]] off len",
     "reads a number of bytes at a specified offset", read_help},
    {"readv", "", io_readv, 2, any, true, false, "[-Cqv] [-P pattern] off len [len..]",
     "reads a number of bytes at a specified offset", ""},
    {"remove_break", "", io_remove_break, 1, 1, true, false, "tag", "remove a breakpoint by tag", ""},
    {"reopen", "", io_reopen, 0, any, true, false, "[(-r|-w)] [-c cache] [-o options]",
     "reopens an image with new options", ""},
    {"resume", "", io_resume, 1, 1, true, false, "tag", "resumes the request tagged as tag", ""},
    {"sigraise", "", io_sigraise, 1, 1, false, false, "signal", "raises a signal", ""},
    {"sleep", "", io_sleep, 1, 1, false, false, "", "waits for the given value in milliseconds", ""},
    {"truncate", "t", io_truncate, 1, 3, true, true, "[-m prealloc_mode] off",
     "truncates the current file at the given offset", ""},
    {"wait_break", "", io_wait_break, 1, 1, true, false, "tag", "waits for the suspension of a request", ""},
    {"write", "w", io_write, 2, any, true, true, "[-bcCfnquz] [-P pattern | -s source_file] off len",
     "writes a number of bytes at a specified offset", write_help},
    {"writev", "", io_writev, 2, any, true, true, "[-Cfq] [-P pattern] off len [len..]",
     "writes a number of bytes at a specified offset", ""},
};

} // namespace

std::span<IoCommand const> io_commands() { return commands; }

std::string io_one_line_help(IoCommand const& c) {
    std::string line(c.name);
    if (c.synopsis == " ")
        line += " "; // as QEMU prints it
    else if (!c.synopsis.empty())
        line += fmt::format(" {}", c.synopsis);
    return fmt::format("{} -- {}", line, c.summary);
}

int io_help(IoSession&, std::span<std::string const> words) {
    if (words.size() > 1) {
        auto found = std::ranges::find_if(commands, [&](IoCommand const& c) {
            return c.name == words[1] || (!c.alias.empty() && c.alias == words[1]);
        });
        if (found == std::end(commands)) {
            std::printf("command %s not found\n", words[1].c_str());
            return -EINVAL;
        }
        std::printf("%s\n%s%s", io_one_line_help(*found).c_str(), std::string(found->help).c_str(),
                    found->help.empty() ? "" : "\n");
        return 0;
    }
    for (IoCommand const& c : commands) std::printf("%s\n", io_one_line_help(c).c_str());
    std::printf("\nUse 'help commandname' for extended help.\n");
    return 0;
}

} // namespace vmm::block
