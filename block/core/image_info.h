// What `info` shows about an image: collected once, printed as QEMU's text or JSON.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/image.h"

#include <optional>
#include <string>
#include <vector>

namespace vmm::block {

struct ImageInfo {
    std::string filename;
    std::string format;
    std::uint64_t virtual_size_bytes = 0;
    std::optional<std::uint64_t> actual_size_bytes;
    FormatInfo details;
    BackingReference backing;
    std::string full_backing_filename;
    std::vector<SnapshotInfo> snapshots;
};

// From an open image (without its backing chain).
Task<Result<ImageInfo>> collect_info(Image& image);
// `info`'s text, each line ended.
std::string info_text(ImageInfo const& info);
// The dictionary of `info --output=json`, QMP's keys.
Value info_value(ImageInfo const& info);
// "196 KiB", "10 GiB", "1.86 MiB", "512 B": three significant digits as QEMU prints sizes.
std::string human_size(std::uint64_t bytes);
// The header and rows of a snapshot table ("ID        TAG ..."), each line ended, times in the local zone.
std::string snapshot_table(std::vector<SnapshotInfo> const& snapshots);

} // namespace vmm::block
