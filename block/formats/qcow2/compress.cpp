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

class Compressor::Encoder {
public:
    virtual ~Encoder() = default;
    // Bytes written to `to`; 0 when they do not fit.
    virtual std::size_t encode(ConstBytes from, Bytes to) = 0;
};

class Compressor::DeflateEncoder final : public Encoder {
public:
    std::size_t encode(ConstBytes from, Bytes to) override {
        isal_deflate_init(stream_.get());
        stream_->level = deflate_level;
        stream_->level_buf = work_space_.data();
        stream_->level_buf_size = std::uint32_t(work_space_.size());
        stream_->hist_bits = write_window_bits;
        stream_->end_of_stream = 1;
        stream_->next_in = const_cast<std::uint8_t*>(from.data());
        stream_->avail_in = std::uint32_t(from.size());
        stream_->next_out = to.data();
        stream_->avail_out = std::uint32_t(to.size());
        bool done = isal_deflate(stream_.get()) == COMP_OK && stream_->internal_state.state == ZSTATE_END;
        return done ? to.size() - stream_->avail_out : 0;
    }

private:
    std::unique_ptr<isal_zstream> stream_ = std::make_unique<isal_zstream>();
    std::vector<std::uint8_t> work_space_ = std::vector<std::uint8_t>(ISAL_DEF_LVL3_DEFAULT);
};

class Compressor::ZstdEncoder final : public Encoder {
public:
    std::size_t encode(ConstBytes from, Bytes to) override {
        if (!context_) return 0;
        std::size_t n =
            ZSTD_compressCCtx(context_.get(), to.data(), to.size(), from.data(), from.size(), ZSTD_CLEVEL_DEFAULT);
        return ZSTD_isError(n) ? 0 : n;
    }

private:
    std::unique_ptr<ZSTD_CCtx, std::size_t (*)(ZSTD_CCtx*)> context_{ZSTD_createCCtx(), ZSTD_freeCCtx};
};

Compressor::Compressor(CompressionType type) : type_(type) {}
Compressor::~Compressor() = default;

std::unique_ptr<Compressor::Encoder> Compressor::take() {
    std::lock_guard lock(mutex_);
    if (spare_.empty()) {
        if (type_ == CompressionType::zlib) return std::make_unique<DeflateEncoder>();
        return std::make_unique<ZstdEncoder>();
    }
    std::unique_ptr<Encoder> encoder = std::move(spare_.back());
    spare_.pop_back();
    return encoder;
}

std::vector<std::uint8_t> Compressor::compress(ConstBytes data) {
    std::unique_ptr<Encoder> encoder = take();
    std::vector<std::uint8_t> out(data.size() - 1);
    out.resize(encoder->encode(data, out));
    std::lock_guard lock(mutex_);
    spare_.push_back(std::move(encoder));
    return out;
}

bool decompress_cluster(CompressionType type, ConstBytes stored, Bytes cluster) {
    return type == CompressionType::zlib ? inflate_cluster(stored, cluster) : unzstd_cluster(stored, cluster);
}

} // namespace vmm::block::qcow2
