// The two compression methods of qcow2 clusters.
#pragma once
#include "block/core/io_spans.h"
#include "block/formats/qcow2/header.h"

#include <memory>
#include <mutex>
#include <vector>

namespace vmm::block::qcow2 {

// Compresses clusters on any thread; keeps the libraries' work space (hundreds of KiB) from one cluster to the next.
class Compressor {
public:
    explicit Compressor(CompressionType type);
    ~Compressor();
    Compressor(Compressor const&) = delete;
    Compressor& operator=(Compressor const&) = delete;

    // `data` (one cluster) compressed into fewer bytes than it has; empty when that is not possible.
    std::vector<std::uint8_t> compress(ConstBytes data);

private:
    class Encoder;
    class DeflateEncoder;
    class ZstdEncoder;
    std::unique_ptr<Encoder> take();
    CompressionType type_;
    std::mutex mutex_;
    std::vector<std::unique_ptr<Encoder>> spare_; // under mutex_
};

// Fills `cluster` from `stored`, which may have trailing bytes. False when the stream is damaged or too short.
bool decompress_cluster(CompressionType type, ConstBytes stored, Bytes cluster);

} // namespace vmm::block::qcow2
