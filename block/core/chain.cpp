#include "block/core/chain.h"

#include <algorithm>

namespace vmm::block {

Task<Result<void>> read_backing(BlockDevice* backing, std::uint64_t offset, IoSpans to) {
    std::uint64_t length = to.size_bytes();
    std::uint64_t size = backing ? backing->size_bytes() : 0;
    std::uint64_t inside = offset >= size ? 0 : std::min(length, size - offset);
    if (inside == length && inside > 0) {
        Result<void> result = co_await backing->read(offset, to);
        co_return result;
    }
    if (inside > 0) {
        IoVector head = IoVector::slice(to.parts, 0, inside);
        CO_TRY(co_await backing->read(offset, head.spans()));
    }
    zero_spans(to, inside, length - inside);
    co_return Result<void>{};
}

Task<Result<BlockStatus>> chain_status(Image& top, std::uint64_t offset, std::uint64_t length, Image* base) {
    CO_TRY(check_range(offset, length, top.size_bytes()));
    unsigned depth = 0;
    Image* layer = &top;
    for (;;) {
        BlockStatus status;
        if (offset >= layer->size_bytes()) { // past the end of a short backing file: zeroes
            status.length = length;
            status.zero = true;
            status.allocated = true;
        } else {
            length = std::min(length, layer->size_bytes() - offset);
            if (AllocationMap* map = layer->capabilities().allocation) {
                CO_TRY_ASSIGN(status, co_await map->status(offset, length));
            } else {
                status.length = length;
                status.allocated = status.data = true;
            }
        }
        status.depth = depth;
        length = std::min(length, status.length);
        status.length = length;
        if (status.allocated) co_return status;
        Image* below = layer->backing();
        if (!below || below == base) {
            if (!below) status.zero = true;
            co_return status;
        }
        layer = below;
        ++depth;
    }
}

unsigned chain_depth(Image& top) {
    unsigned depth = 0;
    for (Image* layer = &top; layer; layer = layer->backing()) ++depth;
    return depth;
}

std::vector<std::string> chain_filenames(Image& top) {
    std::vector<std::string> names;
    for (Image* layer = &top; layer; layer = layer->backing()) names.push_back(layer->filename());
    return names;
}

} // namespace vmm::block
