// Any bytes as the beginning of a file whose format is to be found.
#include "block/formats/default_formats.h"

#include <algorithm>

using namespace vmm;
using namespace vmm::block;

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    FormatTable const formats = default_formats();
    ConstBytes const start(data, std::min(size, probe_bytes));
    for (Format const& format : formats.formats())
        if (format.probe) VMM_ASSERT(format.probe(start, "image") <= 100);
    return 0;
}
