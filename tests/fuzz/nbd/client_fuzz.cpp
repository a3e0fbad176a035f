// Any bytes as a server of the NBD client: the first byte says how far the handshake has come.
#include "tests/support/nbd_feeds.h"

using namespace vmm;
using namespace vmm::block;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size == 0) return 0;
    auto loop = EventLoop::create().value();
    // Any outcome but a crash or a hang is fine.
    Result<void> outcome = nbd::feed_client(*loop, nbd::FeedFrom(data[0] % 4), ConstBytes(data + 1, size - 1));
    (void)outcome;
    return 0;
}
