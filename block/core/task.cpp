#include "block/core/task.h"

#include "vmm/base/event_loop.h"

namespace vmm::block::detail {

void run_until(EventLoop& loop, bool const& done) {
    while (!done) loop.run_once(-1);
}

} // namespace vmm::block::detail
