#include "block/formats/qcow2/compress.h"

#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace vmm::block::qcow2 {

namespace {

// Raw deflate; readers may have a window of no more than 4 KiB.
constexpr int write_window_bits = -12, read_window_bits = -15;

std::vector<std::uint8_t> deflate_cluster(ConstBytes data) {
    z_stream stream{};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, write_window_bits, 9, Z_DEFAULT_STRATEGY) != Z_OK)
        return {};
    std::vector<std::uint8_t> out(data.size() - 1);
    stream.next_in = const_cast<Bytef*>(data.data());
    stream.avail_in = uInt(data.size());
    stream.next_out = out.data();
    stream.avail_out = uInt(out.size());
    int rc = deflate(&stream, Z_FINISH);
    out.resize(rc == Z_STREAM_END ? out.size() - stream.avail_out : 0);
    deflateEnd(&stream);
    return out;
}

bool inflate_cluster(ConstBytes stored, Bytes cluster) {
    z_stream stream{};
    if (inflateInit2(&stream, read_window_bits) != Z_OK) return false;
    stream.next_in = const_cast<Bytef*>(stored.data());
    stream.avail_in = uInt(stored.size());
    stream.next_out = cluster.data();
    stream.avail_out = uInt(cluster.size());
    int rc = inflate(&stream, Z_FINISH);
    bool full = stream.avail_out == 0 && (rc == Z_STREAM_END || rc == Z_BUF_ERROR);
    inflateEnd(&stream);
    return full;
}

std::vector<std::uint8_t> zstd_cluster(ConstBytes data) {
    std::vector<std::uint8_t> out(ZSTD_compressBound(data.size()));
    std::size_t n = ZSTD_compress(out.data(), out.size(), data.data(), data.size(), ZSTD_CLEVEL_DEFAULT);
    out.resize(ZSTD_isError(n) || n >= data.size() ? 0 : n);
    return out;
}

bool unzstd_cluster(ConstBytes stored, Bytes cluster) {
    std::unique_ptr<ZSTD_DCtx, std::size_t (*)(ZSTD_DCtx*)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
    if (!context) return false;
    ZSTD_inBuffer in{stored.data(), stored.size(), 0};
    ZSTD_outBuffer out{cluster.data(), cluster.size(), 0};
    while (out.pos < out.size) {
        std::size_t before_in = in.pos, before_out = out.pos;
        std::size_t rc = ZSTD_decompressStream(context.get(), &out, &in);
        if (ZSTD_isError(rc) || (in.pos == before_in && out.pos == before_out)) return false;
    }
    return true;
}

} // namespace

std::vector<std::uint8_t> compress_cluster(CompressionType type, ConstBytes data) {
    return type == CompressionType::zlib ? deflate_cluster(data) : zstd_cluster(data);
}

bool decompress_cluster(CompressionType type, ConstBytes stored, Bytes cluster) {
    return type == CompressionType::zlib ? inflate_cluster(stored, cluster) : unzstd_cluster(stored, cluster);
}

} // namespace vmm::block::qcow2
