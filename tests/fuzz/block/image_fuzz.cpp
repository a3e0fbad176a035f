// Any bytes as an image: opening, reading, writing, zeroing, mapping and checking end with a result, whatever it is.
#include "block/core/capabilities.h"
#include "block/core/worker_pool.h"
#include "block/formats/default_formats.h"
#include "vmm/base/event_loop.h"
#include "vmm/base/log.h"

#include <algorithm>
#include <cstring>

using namespace vmm;
using namespace vmm::block;

namespace {

constexpr std::uint64_t max_file_bytes = 64 << 20;

// A file in memory: it grows, up to a limit, as a host file does.
class MemoryFile final : public BlockDevice, public Resizable {
public:
    MemoryFile(std::uint8_t const* data, std::size_t size, bool read_only)
        : bytes_(data, data + size), read_only_(read_only) {}
    std::uint64_t size_bytes() const override { return bytes_.size(); }
    bool read_only() const override { return read_only_; }
    Limits limits() const override { return {}; }
    Capabilities capabilities() override { return Capabilities{.resizable = this}; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        std::uint64_t length = to.size_bytes();
        std::uint64_t inside = offset >= bytes_.size() ? 0 : std::min<std::uint64_t>(length, bytes_.size() - offset);
        copy_to_spans(to, 0, ConstBytes(bytes_).subspan(std::min<std::uint64_t>(offset, bytes_.size()), inside));
        zero_spans(to, inside, length - inside);
        co_return Result<void>{};
    }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability) override {
        VMM_ASSERT(!read_only_);
        std::uint64_t length = from.size_bytes();
        if (offset > max_file_bytes || length > max_file_bytes - offset) co_return Error("full", ENOSPC);
        if (bytes_.size() < offset + length) bytes_.resize(offset + length);
        copy_from_spans(from, 0, Bytes(bytes_).subspan(offset, length));
        co_return Result<void>{};
    }
    Task<Result<void>> flush() override { co_return Result<void>{}; }
    Task<Result<void>> resize(ResizeRequest request) override {
        if (request.new_size_bytes > max_file_bytes) co_return Error("full", ENOSPC);
        bytes_.resize(request.new_size_bytes);
        co_return Result<void>{};
    }

private:
    std::vector<std::uint8_t> bytes_;
    bool read_only_;
};

// Sibling files do not exist.
Task<Result<std::unique_ptr<BlockDevice>>> open_nothing(BlockContext&, OpenOptions) {
    co_return Error("No such file or directory", ENOENT);
}

struct Host {
    std::unique_ptr<EventLoop> loop = EventLoop::create().value();
    WorkerPool pool{*loop, 1};
    Log log{"fuzz"};
    FormatTable formats;
    BlockContext context{*loop, pool, log, formats};
    Format format;
    Host() {
        FormatTable all = default_formats();
        format = *all.find(FUZZED_FORMAT);
        formats.add(format);
        Protocol nothing;
        nothing.name = "file";
        nothing.open = open_nothing;
        formats.add(nothing);
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
    static Host host;
    if (size < 1) return 0;
    for (bool read_only : {true, false}) {
        OpenOptions options;
        options.filename = "image";
        options.format = FUZZED_FORMAT;
        options.read_only = read_only;
        FormatOpenArgs args{host.context, std::make_unique<MemoryFile>(data, size, read_only), "image", options};
        auto opened = run_blocking(*host.loop, host.format.open(std::move(args)));
        if (opened.ok()) (void)run_blocking(*host.loop, use(**opened)).ok();
    }
    return 0;
}
