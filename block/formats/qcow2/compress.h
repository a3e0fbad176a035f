// The two compression methods of qcow2 clusters.
#pragma once
#include "block/core/io_spans.h"
#include "block/formats/qcow2/header.h"

#include <vector>

namespace vmm::block::qcow2 {

// `data` (one cluster) compressed into fewer bytes than it has; empty when that is not possible. Any thread.
std::vector<std::uint8_t> compress_cluster(CompressionType type, ConstBytes data);
// Fills `cluster` from `stored`, which may have trailing bytes. False when the stream is damaged or too short.
bool decompress_cluster(CompressionType type, ConstBytes stored, Bytes cluster);

} // namespace vmm::block::qcow2
