#include "block/tools/common/tool.h"

#include "block/formats/default_formats.h"
#include "block/io/uring.h"
#include "block/nbd/tls.h"

#include <cstdio>

namespace vmm::block {

Result<std::unique_ptr<Tool>> Tool::create(std::string_view argv0) {
    std::string name(argv0.substr(argv0.rfind('/') + 1)); // npos + 1 == 0: the whole
    return std::make_unique<Tool>(std::move(name), TRY(EventLoop::create()));
}

Tool::Tool(std::string name, std::unique_ptr<EventLoop> loop)
    : name_(std::move(name)), loop_(std::move(loop)), pool_(*loop_), log_(name_), formats_(default_formats()),
      tls_(std::make_unique<nbd::TlsStore>()), context_{*loop_, pool_, log_, formats_, &secrets_} {
    if (auto engine = make_uring_engine(*loop_); engine.ok()) uring_ = std::move(engine).value();
    context_.uring = uring_.get();
    context_.tls = tls_.get();
}

Tool::~Tool() = default;

void Tool::report(std::string_view text) {
    std::fflush(stdout);
    std::fprintf(stderr, "%s: %.*s\n", name_.c_str(), int(text.size()), text.data());
}

int Tool::fail(Error const& error) { return fail(error.message()); }

int Tool::fail(std::string_view text) {
    report(text);
    return 1;
}

int Tool::usage_error(std::string_view text) {
    report(text);
    std::fprintf(stderr, "Try '%s --help' for more information\n", name_.c_str());
    return 1;
}

} // namespace vmm::block
