// Points inside image drivers where blkdebug can inject errors or stop a request.
#pragma once
#include "block/core/task.h"

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace vmm::block {

// clang-format off
// In QEMU's order and spelling (blkdebug_event_name).
enum class BlkdebugEvent : std::uint8_t {
    l1_update, l1_grow_alloc_table, l1_grow_write_table, l1_grow_activate_table,
    l2_load, l2_update, l2_update_compressed, l2_alloc_cow_read, l2_alloc_write,
    read_aio, read_backing_aio, read_compressed,
    write_aio, write_compressed,
    vmstate_load, vmstate_save,
    cow_read, cow_write,
    reftable_load, reftable_grow, reftable_update,
    refblock_load, refblock_update, refblock_update_part, refblock_alloc, refblock_alloc_hookup, refblock_alloc_write,
    refblock_alloc_write_blocks, refblock_alloc_write_table, refblock_alloc_switch_table,
    cluster_alloc, cluster_alloc_bytes, cluster_free,
    flush_to_os, flush_to_disk,
    pwritev_rmw_head, pwritev_rmw_after_head, pwritev_rmw_tail, pwritev_rmw_after_tail,
    pwritev, pwritev_zero, pwritev_done,
    empty_image_prepare,
    l1_shrink_write_table, l1_shrink_free_l2_clusters,
    cor_write, cluster_alloc_space, none,
    count
};
// clang-format on
std::string_view blkdebug_event_name(BlkdebugEvent event);
std::optional<BlkdebugEvent> parse_blkdebug_event(std::string_view name);

// A device under an image that listens to its events (blkdebug). A driver asks its file once, at open, for
// capabilities().debug, keeps the pointer and, at each point, does `if (debug_) co_await debug_->event(...)`.
class DebugEvents {
public:
    virtual ~DebugEvents() = default;
    // May suspend the request until resumed.
    virtual Task<void> event(BlkdebugEvent event) = 0;
    // vmm-io's break / resume / wait_break / remove_break: the next request to reach `event` stops under the name
    // `tag`.
    virtual Result<void> set_breakpoint(BlkdebugEvent event, std::string tag) = 0;
    virtual Result<void> remove_breakpoint(std::string const& tag) = 0;
    virtual Result<void> resume(std::string const& tag) = 0;
    virtual bool is_suspended(std::string const& tag) const = 0;
};

} // namespace vmm::block
