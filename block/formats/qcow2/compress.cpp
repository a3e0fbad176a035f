#include "block/formats/qcow2/compress.h"

#include <isa-l/igzip_lib.h>
#include <zlib.h>
#include <zstd.h>

#include <memory>

namespace vmm::block::qcow2 {

namespace {

// Raw deflate; readers may have a window of no more than 4 KiB.
constexpr std::uint16_t write_window_bits = 12;
constexpr int read_window_bits = -15;
// The best this library does: a tenth larger than zlib's default makes it, in a fifth of the time.
constexpr std::uint32_t deflate_level = 3;

std::vector<std::uint8_t> deflate_cluster(ConstBytes data) {
    auto stream = std::make_unique<isal_zstream>();
    std::vector<std::uint8_t> work_space(ISAL_DEF_LVL3_DEFAULT), out(data.size() - 1);
    isal_deflate_init(stream.get());
    stream->level = deflate_level;
    stream->level_buf = work_space.data();
    stream->level_buf_size = std::uint32_t(work_space.size());
    stream->hist_bits = write_window_bits;
    stream->end_of_stream = 1;
    stream->next_in = const_cast<std::uint8_t*>(data.data());
    stream->avail_in = std::uint32_t(data.size());
    stream->next_out = out.data();
    stream->avail_out = std::uint32_t(out.size());
    bool done = isal_deflate(stream.get()) == COMP_OK && stream->internal_state.state == ZSTATE_END;
    out.resize(done ? out.size() - stream->avail_out : 0);
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
