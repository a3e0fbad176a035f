// ByteStream: a connection as coroutines see it: read what is there, write all of it, shut it down.
#pragma once
#include "block/core/io_spans.h"
#include "block/core/task.h"
#include "vmm/base/result.h"

#include <cstddef>
#include <vector>

namespace vmm::block::nbd {

// Loop thread only. At most one task reads and one writes at a time. No task may be inside when it is destroyed:
// shut_down() first, which resumes both.
class ByteStream {
public:
    virtual ~ByteStream() = default;
    // At least one byte, at most to.size() (> 0); 0: the peer closed its side.
    virtual Task<Result<std::size_t>> read_some(Bytes to) = 0;
    virtual Task<Result<void>> write_all(ConstIoSpans from) = 0;
    // Ends the connection: tasks inside, and all later ones, fail with ESHUTDOWN. Resumes them before it returns.
    virtual void shut_down() = 0;
    // Sends `from` if that needs no waiting (a last word before shut_down); otherwise does nothing.
    virtual void write_now(ConstBytes from) = 0;
};

// Reads exact amounts from a stream, with read-ahead so that a burst of small messages costs one system call.
class BufferedReader {
public:
    // `stream` must outlive the reader.
    explicit BufferedReader(ByteStream& stream) : stream_(&stream), buffer_(buffer_bytes) {}

    // Fills all of `to`. An end of stream in the middle, or before the first byte unless `eof_ok`, is ECONNRESET;
    // false: end of stream before the first byte.
    Task<Result<bool>> read_exact(Bytes to, bool eof_ok = false);
    template <class T> Task<Result<bool>> read_struct(T& to, bool eof_ok = false) {
        return read_exact(Bytes(reinterpret_cast<std::uint8_t*>(&to), sizeof to), eof_ok);
    }
    // Reads over `length` bytes.
    Task<Result<bool>> skip(std::uint64_t length);
    // Bytes read ahead. Must be 0 when the stream below changes (STARTTLS).
    std::size_t buffered() const { return end_ - begin_; }
    // Goes on with `stream`; nothing may be buffered.
    void replace_stream(ByteStream& stream);
    // Whether a whole `length` bytes can be had without waiting.
    bool has(std::size_t length) const { return buffered() >= length; }

private:
    static constexpr std::size_t buffer_bytes = 16384;
    ByteStream* stream_;
    std::vector<std::uint8_t> buffer_;
    std::size_t begin_ = 0, end_ = 0;
};

} // namespace vmm::block::nbd
