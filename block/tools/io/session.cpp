#include "block/tools/io/session.h"

#include "block/tools/common/image_opening.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

namespace vmm::block {

namespace {

std::vector<std::string> split(std::string const& line) {
    std::vector<std::string> words;
    std::string word;
    for (char c : line + " ") {
        if (c != ' ' && c != '\t' && c != '\n') {
            word += c;
        } else if (!word.empty()) {
            words.push_back(std::move(word));
            word.clear();
        }
    }
    return words;
}

// False, with the message printed, when `count` arguments do not suit.
bool check_argument_count(IoCommand const& command, std::string const& name, int count) {
    if (count >= command.least_arguments && (command.most_arguments < 0 || count <= command.most_arguments))
        return true;
    std::fflush(stdout);
    if (command.most_arguments < 0)
        std::fprintf(stderr, "bad argument count %d to %s, expected at least %d arguments\n", count, name.c_str(),
                     command.least_arguments);
    else if (command.least_arguments == command.most_arguments)
        std::fprintf(stderr, "bad argument count %d to %s, expected %d arguments\n", count, name.c_str(),
                     command.least_arguments);
    else
        std::fprintf(stderr, "bad argument count %d to %s, expected between %d and %d arguments\n", count, name.c_str(),
                     command.least_arguments, command.most_arguments);
    return false;
}

} // namespace

IoSession::~IoSession() {
    VMM_ASSERT(!image_ && in_flight_ == 0);
    for (std::string const& path : temporaries_) unlink(path.c_str());
}

bool IoSession::open(OpenOptions options) {
    options.quiet_probe = true;
    Result<std::unique_ptr<Image>> opened = tool_.run(open_image(tool_.context(), options));
    if (!opened.ok()) {
        std::string name = options.filename.empty() ? "" : " " + options.filename;
        tool_.report(fmt::format("can't open{}: {}", name.empty() ? name : " device" + name, opened.error().message()));
        return false;
    }
    image_ = std::move(opened).value();
    if (image_->probed_raw() && !options.read_only) {
        std::fflush(stdout);
        std::fprintf(stderr, "%s\n", raw_probe_warning(options.filename).c_str());
    }
    options_ = std::move(options);
    return true;
}

Result<void> IoSession::close() {
    drain();
    if (!image_) return {};
    return tool_.run(close_image(std::move(image_)));
}

int IoSession::execute(std::string const& line) {
    std::vector<std::string> words = split(line);
    if (words.empty()) return 0;
    auto matches = [&](IoCommand const& c) { return c.name == words[0] || (!c.alias.empty() && c.alias == words[0]); };
    auto found = std::ranges::find_if(io_commands(), matches);
    if (found == io_commands().end()) {
        std::fflush(stdout);
        std::fprintf(stderr, "command \"%s\" not found\n", words[0].c_str());
        return -EINVAL;
    }
    IoCommand const& command = *found;
    if (command.needs_file && !image_) {
        std::fflush(stdout);
        std::fprintf(stderr, "no file open, try 'help open'\n");
        return -EINVAL;
    }
    if (!check_argument_count(command, words[0], int(words.size()) - 1)) return -EINVAL;
    if (command.needs_write && image_->read_only()) {
        tool_.report("Block node is read-only");
        return -EACCES;
    }
    int status = command.run(*this, words);
    std::fflush(stdout);
    return status;
}

void IoSession::start(Task<void> work) {
    ++in_flight_;
    spawn(std::move(work), [this] { --in_flight_; });
}

void IoSession::drain() {
    while (in_flight_ > 0) tool_.loop().run_once(-1);
}

} // namespace vmm::block
