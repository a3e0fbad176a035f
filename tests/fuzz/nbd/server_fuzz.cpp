// Any bytes as a client of the NBD server: the first byte says how far the handshake has come.
#include "tests/support/block_bench.h"
#include "tests/support/nbd_feeds.h"

using namespace vmm;
using namespace vmm::block;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    if (size == 0) return 0;
    auto loop = EventLoop::create().value();
    WorkerPool pool(*loop);
    Log log("fuzz");
    FormatTable formats = default_formats();
    BlockContext context{*loop, pool, log, formats};
    OpenOptions options;
    options.format = "null-co";
    options.tree.set("size", "1048576");
    options.tree.set("read-zeroes", "on");
    auto image = run_blocking(*loop, open_image(context, options)).value();
    nbd::feed_server(*loop, *image, nbd::FeedFrom(data[0] % 4), ConstBytes(data + 1, size - 1));
    run_blocking(*loop, close_image(std::move(image))).value();
    return 0;
}
