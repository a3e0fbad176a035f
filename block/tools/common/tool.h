// Tool: what a block program (vmm-img, vmm-io) runs in: loop, workers, formats, and how it talks to the user.
#pragma once
#include "block/core/context.h"
#include "block/core/factory.h"
#include "block/core/secret_store.h"
#include "block/core/worker_pool.h"
#include "block/io/file_io.h"
#include "vmm/base/log.h"

#include <memory>
#include <string>
#include <string_view>

namespace vmm::block {

// One per process, made by main(). Messages carry the name the program was called by (a symlink `qemu-img` answers like
// it). Main thread only.
class Tool {
public:
    // `argv0`: its last path component is the name in messages.
    static Result<std::unique_ptr<Tool>> create(std::string_view argv0);
    Tool(std::string name, std::unique_ptr<EventLoop> loop);
    ~Tool();

    std::string const& name() const { return name_; }
    BlockContext& context() { return context_; }
    EventLoop& loop() { return *loop_; }
    SecretStore& secrets() { return secrets_; }
    nbd::TlsStore& tls() { return *tls_; }
    // "NAME: text" on standard error, after what was written to standard output so far.
    void report(std::string_view text);
    void warn(std::string_view text) { report("warning: " + std::string(text)); }
    // report(error.message()); always 1, for `return tool.fail(...)`.
    int fail(Error const& error);
    int fail(std::string_view text);
    // The same plus "Try 'NAME --help' for more information".
    int usage_error(std::string_view text);

    template <class T> T run(Task<T> task) { return run_blocking(*loop_, std::move(task)); }

private:
    std::string name_;
    std::unique_ptr<EventLoop> loop_;
    WorkerPool pool_;
    Log log_;
    FormatTable formats_;
    SecretStore secrets_;
    std::unique_ptr<nbd::TlsStore> tls_;
    std::unique_ptr<IoEngine> uring_;
    BlockContext context_;
};

} // namespace vmm::block
