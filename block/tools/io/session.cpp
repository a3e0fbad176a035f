#include "block/tools/io/session.h"

#include "block/core/capabilities.h"
#include "block/tools/common/image_opening.h"
#include "vmm/base/checked.h"

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
    Result<std::unique_ptr<Image>> opened = Error("force-share=on can only be used with read-only images", EINVAL);
    if (!options.force_share || options.read_only || options.tree.has("read-only"))
        opened = tool_.run(open_image(tool_.context(), options));
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

Task<Result<void>> IoSession::read(std::uint64_t offset, IoSpans to) {
    if (copy_on_read_ && image_->backing() && !image_->read_only()) {
        CO_TRY(co_await copy_up(offset, to.size_bytes()));
    }
    Result<void> result = co_await image_->read(offset, to);
    co_return result;
}

Task<Result<void>> IoSession::copy_up(std::uint64_t offset, std::uint64_t length) {
    AllocationMap* map = image_->capabilities().allocation;
    std::uint64_t const size = image_->size_bytes(), unit = std::max(image_->limits().opt_transfer, 1u);
    if (!map || offset > size || length > size - offset) co_return Result<void>{};
    constexpr std::uint64_t most_at_once = 2 << 20;
    std::vector<std::uint8_t> content;
    for (std::uint64_t at = align_down(offset, unit), end = std::min(size, align_up(offset + length, unit));
         at < end;) {
        CO_TRY_ASSIGN(BlockStatus status, co_await map->status(at, std::min(end - at, most_at_once)));
        if (!status.allocated) {
            content.resize(status.length);
            Bytes all(content);
            CO_TRY(co_await read_bytes(*image_, at, all));
            Result<void> kept = is_zero(ConstBytes(all)) ? co_await write_zeroes(*image_, at, status.length, {})
                                                         : co_await write_bytes(*image_, at, all);
            CO_TRY(kept);
        }
        at += status.length;
    }
    co_return Result<void>{};
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
