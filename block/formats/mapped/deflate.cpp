#include "block/core/worker_pool.h"
#include "block/formats/mapped/mapped_image.h"

#include <zlib.h>

namespace vmm::block {

namespace {

int window_of(DeflateKind kind, int bits) { return kind == DeflateKind::raw ? -bits : bits; }

bool inflate_all(DeflateKind kind, ConstBytes from, Bytes to) {
    z_stream stream{};
    if (inflateInit2(&stream, window_of(kind, 15)) != Z_OK) return false;
    stream.next_in = const_cast<Bytef*>(from.data());
    stream.avail_in = uInt(from.size());
    stream.next_out = to.data();
    stream.avail_out = uInt(to.size());
    int status = inflate(&stream, Z_FINISH);
    bool filled = stream.avail_out == 0;
    inflateEnd(&stream);
    // A stream in a whole number of sectors may be followed by rubbish, and one that would go on past `to` filled it.
    return filled && (status == Z_STREAM_END || status == Z_BUF_ERROR || status == Z_OK);
}

std::vector<std::uint8_t> deflate_all(DeflateKind kind, int window_bits, ConstBytes from, std::size_t limit) {
    z_stream stream{};
    if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, window_of(kind, window_bits), 9, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return {};
    std::vector<std::uint8_t> out(limit);
    stream.next_in = const_cast<Bytef*>(from.data());
    stream.avail_in = uInt(from.size());
    stream.next_out = out.data();
    stream.avail_out = uInt(out.size());
    int status = deflate(&stream, Z_FINISH);
    if (status == Z_STREAM_END)
        out.erase(out.end() - std::ptrdiff_t(stream.avail_out), out.end());
    else
        out.clear();
    deflateEnd(&stream);
    return out;
}

} // namespace

Task<Result<void>> inflate_on_pool(BlockContext& context, DeflateKind kind, std::vector<std::uint8_t> from, Bytes to) {
    ConstBytes packed(from); // `from` lives in this frame
    auto work = [kind, packed, to] { return inflate_all(kind, packed, to); };
    bool good = co_await on_pool(context.pool, work);
    if (!good) co_return Error("Compressed data is damaged", EIO);
    co_return Result<void>{};
}

Task<std::vector<std::uint8_t>> deflate_on_pool(BlockContext& context, DeflateKind kind, int window_bits,
                                                ConstBytes from, std::size_t limit) {
    auto work = [kind, window_bits, from, limit] { return deflate_all(kind, window_bits, from, limit); };
    std::vector<std::uint8_t> packed = co_await on_pool(context.pool, work);
    co_return packed;
}

} // namespace vmm::block
