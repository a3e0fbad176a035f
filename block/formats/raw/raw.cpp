#include "block/formats/raw/raw.h"

#include "block/core/capabilities.h"
#include "block/core/debug_events.h"
#include "vmm/base/checked.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace vmm::block {

namespace {

constexpr std::uint64_t sector_bytes = 512;

constexpr OptionSpec open_options[] = {
    {"offset", OptionType::size, "where the disk begins in the file"},
    {"size", OptionType::size, "how long it is"},
};

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
};

// A window [offset, offset + size) of its file; the whole of it unless options say otherwise.
class RawImage final : public Image, public SparseCapable, public AllocationMap, public Resizable {
public:
    RawImage(FormatOpenArgs args, std::uint64_t start, std::optional<std::uint64_t> size)
        : context_(args.context), file_(std::move(args.file)), name_(std::move(args.filename)), start_(start),
          fixed_size_(size), debug_(file_->capabilities().debug), growable_(file_->limits().growable) {}

    std::string_view format_name() const override { return "raw"; }
    BlockDevice* file() override { return file_.get(); }
    BackingReference backing_reference() const override { return {}; }
    Task<Result<void>> close() override {
        Result<void> result;
        if (!file_->read_only()) result = co_await file_->flush();
        co_return result;
    }
    Result<std::uint64_t> allocated_size_bytes() override {
        struct stat status {};
        if (stat(name_.c_str(), &status) < 0) return error_from_errno(errno, "Could not examine '{}'", name_);
        return std::uint64_t(status.st_blocks) * 512;
    }
    // Disks are whole sectors: what lacks of the last one in a file reads as zeroes.
    std::uint64_t size_bytes() const override {
        if (fixed_size_) return *fixed_size_;
        std::uint64_t const rest = file_->size_bytes() - std::min(start_, file_->size_bytes());
        return growable_ ? align_up(rest, sector_bytes) : rest;
    }
    bool read_only() const override { return file_->read_only(); }
    Limits limits() const override {
        Limits l = file_->limits();
        l.growable = false;
        return l;
    }
    Capabilities capabilities() override {
        Capabilities under = file_->capabilities();
        return Capabilities{.sparse = under.sparse ? this : nullptr,
                            .allocation = this,
                            .resizable = under.resizable && start_ == 0 && !fixed_size_ ? this : nullptr,
                            .debug = under.debug};
    }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override { return file_->flush(); }
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<void>> resize(ResizeRequest request) override;

private:
    // EPERM when a write to the first bytes of an image probed as raw would make it look like another format: a guest
    // could otherwise turn its raw disk into, say, a qcow2 with any host file as backing file.
    Task<Result<void>> check_header(std::uint64_t offset, ConstIoSpans from);

    BlockContext& context_;
    std::unique_ptr<BlockDevice> file_;
    std::string name_;
    std::uint64_t start_;
    std::optional<std::uint64_t> fixed_size_;
    DebugEvents* debug_; // the file's, or null
    bool growable_;
};

Task<Result<void>> RawImage::check_header(std::uint64_t offset, ConstIoSpans from) {
    std::vector<std::uint8_t> header(std::min<std::uint64_t>(probe_bytes, size_bytes()));
    Bytes all(header);
    CO_TRY(co_await read_bytes(*file_, start_, all));
    std::size_t n = std::min<std::uint64_t>(from.size_bytes(), header.size() - offset);
    copy_from_spans(from, 0, all.subspan(offset, n));
    if (context_.formats.probe(header, name_)->name == "raw") co_return Result<void>{};
    co_return Error("Operation not permitted", EPERM);
}

Task<Result<void>> RawImage::read(std::uint64_t offset, IoSpans to) {
    CO_TRY(check_range(offset, to.size_bytes(), size_bytes()));
    if (debug_) co_await debug_->event(BlkdebugEvent::read_aio);
    Result<void> result = co_await file_->read(start_ + offset, to);
    co_return result;
}

Task<Result<void>> RawImage::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    CO_TRY(check_range(offset, from.size_bytes(), size_bytes()));
    if (probed_raw() && offset < probe_bytes && from.size_bytes() > 0) {
        CO_TRY(co_await check_header(offset, from));
    }
    if (zero_detection() != DetectZeroes::off) {
        CO_TRY_ASSIGN(bool zeroed, co_await write_if_zero(*this, offset, from, durability));
        if (zeroed) co_return Result<void>{};
    }
    if (debug_) co_await debug_->event(BlkdebugEvent::write_aio);
    Result<void> result = co_await file_->write(start_ + offset, from, durability);
    co_return result;
}

Task<Result<void>> RawImage::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check_range(offset, length, size_bytes()));
    Result<void> result = co_await file_->capabilities().sparse->write_zeroes(start_ + offset, length, flags);
    co_return result;
}

Task<Result<void>> RawImage::discard(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check_range(offset, length, size_bytes()));
    Result<void> result = co_await file_->capabilities().sparse->discard(start_ + offset, length);
    co_return result;
}

Task<Result<BlockStatus>> RawImage::status(std::uint64_t offset, std::uint64_t length) {
    BlockStatus status;
    status.length = length;
    status.allocated = status.data = true;
    if (AllocationMap* map = file_->capabilities().allocation) {
        CO_TRY_ASSIGN(status, co_await map->status(start_ + offset, length));
    }
    co_return status;
}

Task<Result<void>> RawImage::resize(ResizeRequest request) {
    if (request.preallocation == Preallocation::metadata) co_return error("Unsupported preallocation mode 'metadata'");
    Result<void> result = co_await file_->capabilities().resizable->resize(request);
    co_return result;
}

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    CO_TRY_ASSIGN(std::uint64_t start, args.options.tree.size("offset", 0));
    std::optional<std::uint64_t> size;
    std::uint64_t have = args.file->size_bytes();
    if (args.options.tree.has("size") && args.options.format == "raw") {
        CO_TRY_ASSIGN(size, args.options.tree.size("size", 0));
    }
    if (size && *size % sector_bytes) co_return error("Specified size is not multiple of {}", sector_bytes);
    if (start > have)
        co_return error("Offset ({}) cannot be greater than size of the containing file ({})", start, have);
    if (start > have || (size && *size > have - start))
        co_return error("The sum of offset ({}) and size ({}) has to be smaller or equal to the  actual size of the "
                        "containing file ({})",
                        start, size.value_or(0), have);
    co_return std::make_unique<RawImage>(std::move(args), start, size);
}

Task<Result<void>> create(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, request.size_bytes, request.file_options));
    co_return Result<void>{};
}

Result<Format::Measure> measure(std::uint64_t size, std::uint64_t, OptionValues const&) {
    return Format::Measure{.required = size, .fully_allocated = size};
}

} // namespace

Format raw_format() {
    return {.name = "raw",
            .open = open,
            .create = create,
            .create_options = create_options,
            .open_options = open_options,
            .measure = measure};
}

} // namespace vmm::block
