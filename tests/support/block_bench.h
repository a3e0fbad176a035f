// BlockBench: an event loop, a pool and a context for tests of the block layer, and a directory that goes away.
#pragma once
#include "block/core/context.h"
#include "block/core/factory.h"
#include "block/core/secret_store.h"
#include "block/core/worker_pool.h"
#include "block/formats/default_formats.h"
#include "block/io/uring.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"

#include <filesystem>
#include <string>

namespace vmm::block {

struct BlockBench {
    explicit BlockBench(bool with_uring = true) {
        if (with_uring)
            if (auto engine = make_uring_engine(*loop); engine.ok()) uring = std::move(engine).value();
        context.uring = uring.get();
        secrets.add("sec0", {'a', 'b', 'c'});
        context.secrets = &secrets;
        std::string pattern = (std::filesystem::temp_directory_path() / "vmm-block-XXXXXX").string();
        directory = mkdtemp(pattern.data());
    }
    ~BlockBench() { std::filesystem::remove_all(directory); }
    std::string path(std::string const& name) const { return directory + "/" + name; }
    template <class T> T run(Task<T> task) { return run_blocking(*loop, std::move(task)); }

    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    WorkerPool pool{*loop};
    Log log{"test"};
    FormatTable formats = default_formats();
    std::unique_ptr<IoEngine> uring;
    SecretStore secrets; // "sec0"
    BlockContext context{*loop, pool, log, formats};
    std::string directory;
};

} // namespace vmm::block
