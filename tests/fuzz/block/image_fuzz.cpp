// Any bytes as an image (sparse_file.h says how they are laid out): opening, reading, writing, zeroing, mapping and
// checking end with a result, whatever it is.
#include "block/core/capabilities.h"
#include "block/core/secret_store.h"
#include "block/core/worker_pool.h"
#include "block/formats/default_formats.h"
#include "tests/fuzz/block/amends.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"

#include <algorithm>

using namespace vmm;
using namespace vmm::block;

namespace {

// Sibling files (extents, backing files) hold the same bytes as the image itself.
struct Input {
    std::uint8_t const* data = nullptr;
    std::size_t size = 0;
    fuzz::SparseBytes decode() const {
        fuzz::SparseBytes file = fuzz::SparseBytes::decode(ConstBytes(data, size));
        fuzz::amend(FUZZED_FORMAT, file);
        return file;
    }
};
Input current;

Task<Result<std::unique_ptr<BlockDevice>>> open_sibling(BlockContext&, OpenOptions options) {
    if (options.filename.size() > 4096) co_return Error("File name too long", ENAMETOOLONG);
    std::unique_ptr<BlockDevice> file = std::make_unique<fuzz::SparseFile>(current.decode(), options.read_only);
    co_return std::move(file);
}

struct Host {
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    WorkerPool pool{*loop, 1};
    Log log{"fuzz"};
    FormatTable formats;
    SecretStore secrets;
    BlockContext context{*loop, pool, log, formats, &secrets};
    Format format;
    Host() {
        FormatTable all = default_formats();
        format = *all.find(FUZZED_FORMAT);
        formats.add(format);
        Protocol siblings;
        siblings.name = "file";
        siblings.open = open_sibling;
        formats.add(siblings);
        secrets.add("s", {'a', 'b', 'c'});
    }
};

// What only tools ask for: repair, snapshots, bitmaps, another size.
Task<void> use_extras(Image& image) {
    Capabilities can = image.capabilities();
    auto ignore = [](std::string_view) {};
    std::vector<std::uint8_t> buffer(4096);
    if (can.checkable) {
        Result<CheckReport> repaired = co_await can.checkable->check(RepairMode::all, ignore);
        (void)repaired.ok();
    }
    if (can.snapshots) {
        std::vector<SnapshotInfo> known = can.snapshots->list();
        if (!known.empty()) {
            Result<void> applied = co_await can.snapshots->apply(known[0].id);
            Result<void> removed = co_await can.snapshots->remove(known[0].id);
            (void)(applied.ok() + removed.ok());
        }
        SnapshotRequest request;
        request.name = "f";
        Result<void> made = co_await can.snapshots->create(request);
        (void)made.ok();
        if (image.size_bytes() >= buffer.size()) {
            Result<void> written = co_await write_bytes(image, 0, ConstBytes(buffer));
            (void)written.ok();
        }
    }
    if (can.bitmaps) {
        for (BitmapInfo const& bitmap : can.bitmaps->bitmaps()) {
            Result<DirtyBitmaps::Stretch> stretch = co_await can.bitmaps->bitmap_status(bitmap.name, 0);
            (void)stretch.ok();
        }
    }
    if (can.resizable) {
        std::uint64_t size = image.size_bytes() / 512 * 512;
        ResizeRequest grow{.new_size_bytes = std::min<std::uint64_t>(size, INT64_MAX / 2) + 65536},
            shrink{.new_size_bytes = size / 2, .shrink_ok = true};
        Result<void> grown = co_await can.resizable->resize(grow);
        Result<void> shrunk = co_await can.resizable->resize(shrink);
        (void)(grown.ok() + shrunk.ok());
    }
}

Task<Result<void>> use(Image& image) {
    std::vector<std::uint8_t> buffer(70000, 0x5a);
    Bytes bytes(buffer);
    ZeroFlags zero{.may_unmap = true};
    std::uint64_t size = image.size_bytes();
    std::uint64_t const places[] = {0, 1, size / 2 + 511, size > buffer.size() ? size - buffer.size() : 0};
    for (std::uint64_t at : places) {
        std::uint64_t length = std::min<std::uint64_t>(buffer.size(), size - std::min(at, size));
        if (length == 0) continue;
        Result<void> read = co_await read_bytes(image, at, bytes.first(length));
        Result<void> written = co_await write_bytes(image, at, bytes.first(length));
        Result<void> zeroed = co_await block::write_zeroes(image, at, length / 2 + 1, zero);
        (void)(read.ok() + written.ok() + zeroed.ok());
        if (AllocationMap* map = image.capabilities().allocation) {
            Result<BlockStatus> status = co_await map->status(at, length);
            VMM_ASSERT(!status.ok() || (status->length > 0 && status->length <= length));
        }
    }
    auto ignore = [](std::string_view) {};
    if (Checkable* checkable = image.capabilities().checkable) {
        Result<CheckReport> report = co_await checkable->check(RepairMode::none, ignore);
        (void)report.ok();
    }
    if (InfoSource* info = image.capabilities().info) {
        Result<FormatInfo> shown = co_await info->format_info();
        (void)shown.ok();
    }
    if (!image.read_only()) co_await use_extras(image);
    Result<void> closed = co_await image.close();
    co_return closed;
}

} // namespace

extern "C" int LLVMFuzzerTestOneInput(std::uint8_t const* data, std::size_t size) {
    static Host& host = *new Host; // never destroyed: the library behind the ciphers is gone when statics go
    current = Input{data, size};
    for (bool read_only : {true, false}) {
        OpenOptions options;
        options.filename = "image";
        options.format = FUZZED_FORMAT;
        options.read_only = read_only;
        options.tree.set("key-secret", "s");
        options.tree.set("encrypt.key-secret", "s");
        FormatOpenArgs args{host.context, std::make_unique<fuzz::SparseFile>(current.decode(), read_only), "image",
                            options};
        auto opened = run_blocking(*host.loop, host.format.open(std::move(args)));
        if (opened.ok()) (void)run_blocking(*host.loop, use(**opened)).ok();
    }
    return 0;
}
