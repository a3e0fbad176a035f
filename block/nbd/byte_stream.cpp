#include "block/nbd/byte_stream.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::block::nbd {

void BufferedReader::replace_stream(ByteStream& stream) {
    VMM_ASSERT(buffered() == 0);
    stream_ = &stream;
}

Task<Result<bool>> BufferedReader::read_exact(Bytes to, bool eof_ok) {
    std::size_t done = 0;
    while (done < to.size()) {
        if (std::size_t ready = std::min(buffered(), to.size() - done)) {
            std::memcpy(to.data() + done, buffer_.data() + begin_, ready);
            begin_ += ready;
            done += ready;
            continue;
        }
        Bytes rest = to.subspan(done);
        bool direct = rest.size() >= buffer_bytes; // a payload: no copy
        Bytes target = direct ? rest : Bytes(buffer_);
        CO_TRY_ASSIGN(std::size_t got, co_await stream_->read_some(target));
        if (got == 0) {
            if (done == 0 && eof_ok) co_return false;
            co_return Error("The connection was closed in the middle of a message", ECONNRESET);
        }
        if (direct) {
            done += got;
        } else {
            begin_ = 0;
            end_ = got;
        }
    }
    co_return true;
}

Task<Result<bool>> BufferedReader::skip(std::uint64_t length) {
    std::vector<std::uint8_t> scratch(std::min<std::uint64_t>(length, 65536));
    while (length > 0) {
        Bytes part = Bytes(scratch).first(std::min<std::uint64_t>(length, scratch.size()));
        CO_TRY(co_await read_exact(part));
        length -= part.size();
    }
    co_return true;
}

} // namespace vmm::block::nbd
