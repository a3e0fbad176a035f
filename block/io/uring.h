// The io_uring engine.
#pragma once
#include "block/io/file_io.h"
#include "vmm/base/result.h"

namespace vmm {
class EventLoop;
}

namespace vmm::block {

// A ring whose completions resume tasks on `loop` (which must outlive it). Fails where the kernel has no io_uring or a
// policy forbids it; callers then use threads.
Result<std::unique_ptr<IoEngine>> make_uring_engine(EventLoop& loop);

} // namespace vmm::block
