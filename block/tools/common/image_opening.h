// Opening images as the tools do: common options, QEMU's wording of failures, the warning about guessed raw images.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/image.h"
#include "block/tools/common/tool.h"

#include <string>

namespace vmm::block {

struct ImageRequest {
    std::string name;
    std::string format = {}; // -f; empty: probe
    bool image_opts = false; // name is "driver=...,..."
    bool writable = false;
    bool force_share = false; // -U
    CacheMode cache = CacheMode::writeback;
    BackingChoice backing = BackingChoice::from_image;
    bool for_check = false;
    bool no_io = false;
    bool discard = false; // discards reach the host
    AioEngine aio = AioEngine::automatic;
    bool quiet_probe = false; // no warning about a guess
    OptionValues extra = {};  // driver options beside those in the name
};

// "Could not open 'NAME': ..." in front of the factory's message. Warns when an image opened for writing was guessed to
// be raw.
Task<Result<std::unique_ptr<Image>>> open_for_tool(Tool& tool, ImageRequest request);

// `-t`: "Invalid cache option: x"; `-T`: "Invalid source cache option: x".
Result<CacheMode> parse_cache_option(std::string const* given, CacheMode fallback, bool source = false);

// The name without "file:".
std::string local_path(std::string_view name);
// Where block device `path` (or a partition of it) is mounted; empty: nowhere, or not a block device.
std::string mount_point_of(std::string const& path);

} // namespace vmm::block
