// vmm-io: reads, writes and looks at images by command, one request at a time or many.
#include "block/tools/common/arguments.h"
#include "block/tools/common/objects.h"
#include "block/tools/io/opening.h"
#include "block/tools/io/prompt.h"

#include <cstdio>

using namespace vmm;
using namespace vmm::block;

namespace {

constexpr OptionRow rows[] = {{"help", 'h'},          {"version", 'V'},     {"cmd", 'c', true},   {"format", 'f', true},
                              {"read-only", 'r'},     {"snapshot", 's'},    {"nocache", 'n'},     {"copy-on-read", 'C'},
                              {"misalign", 'm'},      {"native-aio", 'k'},  {"aio", 'i', true},   {"cache", 't', true},
                              {"discard", 'd', true}, {"trace", 'T', true}, {"force-share", 'U'}, {"object", 0, true},
                              {"image-opts", 0}};

constexpr char help_text[] = "Usage: %s [OPTIONS]... [-c STRING]... [file]\n"
                             "Disk image exerciser\n\n"
                             "      --object OBJECTDEF   a secret with a password or key\n"
                             "      --image-opts         the file is given as options (driver=...,...)\n"
                             "  -c, --cmd STRING         run this command and end; may be repeated\n"
                             "  -f, --format FMT         image format (default: probe)\n"
                             "  -r, --read-only          open read-only\n"
                             "  -s, --snapshot           write to a temporary overlay\n"
                             "  -n, --nocache            bypass the host's page cache (-t none)\n"
                             "  -C, --copy-on-read       what comes from a backing file is kept in the image\n"
                             "  -m, --misalign           buffers that do not suit O_DIRECT\n"
                             "  -k, --native-aio         accepted, same as -i native\n"
                             "  -i, --aio=MODE           threads, native or io_uring\n"
                             "  -t, --cache=MODE         cache mode of the image\n"
                             "  -d, --discard=MODE       ignore or unmap\n"
                             "  -T, --trace PATTERN      accepted: there are no trace points\n"
                             "  -U, --force-share        take no locks\n"
                             "  -h, --help               show this and exit\n"
                             "  -V, --version            show the version and exit\n\n"
                             "See '%s -c help' for the commands.\n";

// Opens what the command line names; false after a message.
bool open_named_file(IoSession& session, Arguments const& args) {
    Flags flags;
    for (Arguments::Given const& one : args.given()) {
        if (one.row.letter == 0 || std::string_view("hVcfT").find(one.row.letter) != std::string_view::npos) continue;
        flags.letters += one.row.letter;
        if (one.row.has_value) flags.values.emplace_back(one.row.letter, one.value);
    }
    Tool& tool = session.tool();
    Result<OpenOptions> options = open_options_from(flags);
    if (!options.ok()) return tool.fail(options.error()), false;
    std::string const& name = args.operands()[0];
    session.set_copy_on_read(args.has('C'));
    if (args.has("image-opts") && args.has('f')) return tool.fail("--image-opts and -f are mutually exclusive"), false;
    if (args.has("image-opts")) {
        Result<OpenOptions> parsed = parse_image_opts(name);
        if (!parsed.ok()) return tool.fail(parsed.error()), false;
        options->tree = parsed->tree;
    } else {
        options->filename = name;
        options->format = args.value_or('f', "");
    }
    if (args.has('s')) {
        Result<void> overlaid = put_snapshot_on_top(session, *options);
        if (!overlaid.ok()) return tool.fail(overlaid.error()), false;
    }
    return session.open(std::move(*options));
}

// All commands of -c, or of the prompt; 1 if one failed.
int run_commands(IoSession& session, Arguments const& args) {
    bool failed = false;
    std::vector<std::string> given = args.values('c');
    for (std::string const& line : given) {
        if (session.finished()) break;
        failed |= session.execute(line) < 0;
    }
    if (given.empty()) {
        Prompt prompt(session.tool().name() + "> ");
        while (!session.finished()) {
            std::optional<std::string> line = prompt.next();
            if (!line) break;
            failed |= session.execute(*line) < 0;
        }
    }
    return failed ? 1 : 0;
}

int run(Tool& tool, std::vector<std::string> const& words) {
    Result<Arguments> parsed = Arguments::parse(words, rows);
    if (!parsed.ok()) return tool.usage_error(parsed.error().message());
    Arguments const& args = *parsed;
    if (args.has('h')) {
        std::printf(help_text, tool.name().c_str(), tool.name().c_str());
        return 0;
    }
    if (args.has('V')) {
        std::printf("%s version %s\n", tool.name().c_str(), VMM_VERSION);
        return 0;
    }
    for (std::string const& definition : args.values("object"))
        if (Result<void> added = add_object(tool, definition); !added.ok()) return tool.fail(added.error());
    if (args.operands().size() > 1) return tool.usage_error("Only one file can be opened");
    IoSession session(tool);
    if (!args.operands().empty() && !open_named_file(session, args)) return 1;
    int status = run_commands(session, args);
    Result<void> closed = session.close();
    return closed.ok() ? status : tool.fail(closed.error());
}

} // namespace

int main(int argc, char** argv) {
    auto tool = Tool::create(argc > 0 ? argv[0] : "vmm-io");
    if (!tool.ok()) {
        std::fprintf(stderr, "vmm-io: %s\n", tool.error().message().c_str());
        return 1;
    }
    return run(**tool, std::vector<std::string>(argv + (argc > 0), argv + argc));
}
