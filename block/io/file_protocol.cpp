#include "block/io/file_protocol.h"

#include "block/core/aligned_device.h"
#include "block/core/capabilities.h"
#include "block/core/existing_target.h"
#include "block/core/worker_pool.h"
#include "block/io/file_io.h"
#include "block/io/image_lock.h"
#include "vmm/base/log.h"
#include "vmm/base/unique_fd.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <optional>

namespace vmm::block {

namespace {

class HostFile final : public BlockDevice, public SparseCapable, public AllocationMap, public Resizable {
public:
    struct Setup {
        std::string filename;
        UniqueFd fd;
        UniqueFd lock_fd; // holds the locks, when there are any
        std::unique_ptr<FileIo> io;
        std::uint64_t size = 0;
        bool is_device = false, read_only = false;
        CacheMode cache = CacheMode::writeback;
        DiscardMode discard = DiscardMode::ignore;
        std::uint32_t alignment = 1;
    };
    HostFile(BlockContext& context, Setup setup) : context_(context), s_(std::move(setup)) {}

    std::uint64_t size_bytes() const override { return s_.size; }
    bool read_only() const override { return s_.read_only; }
    Limits limits() const override {
        Limits l;
        l.request_alignment = l.memory_alignment = s_.alignment;
        l.growable = !s_.is_device;
        return l;
    }
    Capabilities capabilities() override { return Capabilities{.sparse = this, .allocation = this, .resizable = this}; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<void>> resize(ResizeRequest request) override;

private:
    Result<void> check(std::uint64_t offset, std::uint64_t length, bool writing) const;
    // ioctl(fd, request, {offset, length}) on a worker.
    Task<int> range_ioctl(unsigned long request, std::uint64_t offset, std::uint64_t length);
    Error describe(Error const& cause, std::string_view what) const {
        return Error(fmt::format("Could not {} '{}': {}", what, s_.filename, cause.message()), cause.errno_value());
    }
    BlockContext& context_;
    Setup s_;
};

Result<void> HostFile::check(std::uint64_t offset, std::uint64_t length, bool writing) const {
    if (writing && s_.read_only) return Error("Operation not permitted", EPERM);
    return check_range(offset, length, s_.is_device ? s_.size : std::uint64_t(INT64_MAX));
}

Task<Result<void>> HostFile::read(std::uint64_t offset, IoSpans to) {
    CO_TRY(check(offset, to.size_bytes(), false));
    Result<void> result = co_await s_.io->read(offset, to);
    if (!result.ok()) co_return describe(result.error(), "read");
    co_return result;
}

Task<Result<void>> HostFile::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    std::uint64_t length = from.size_bytes();
    CO_TRY(check(offset, length, true));
    Result<void> result = co_await s_.io->write(offset, from);
    if (!result.ok()) co_return describe(result.error(), "write");
    s_.size = std::max(s_.size, offset + length);
    if (durability == Durability::fua || writes_through(s_.cache)) {
        CO_TRY(co_await flush());
    }
    co_return Result<void>{};
}

Task<Result<void>> HostFile::flush() {
    if (s_.cache == CacheMode::unsafe || s_.read_only) co_return Result<void>{};
    Result<void> result = co_await s_.io->sync_data();
    if (!result.ok()) co_return describe(result.error(), "flush");
    co_return result;
}

Task<int> HostFile::range_ioctl(unsigned long request, std::uint64_t offset, std::uint64_t length) {
    auto work = [this, request, offset, length] {
        std::uint64_t range[2] = {offset, length};
        return ioctl(s_.fd.get(), request, range) < 0 ? errno : 0;
    };
    int code = co_await on_pool(context_.pool, work);
    co_return code;
}

Task<Result<void>> HostFile::write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) {
    CO_TRY(check(offset, length, true));
    if (length == 0) co_return Result<void>{};
    int code = 0;
    if (s_.is_device) {
        code = co_await range_ioctl(BLKZEROOUT, offset, length);
    } else {
        // Past the end only the size has to grow; a hole reads as zero.
        bool beyond = offset >= s_.size;
        int mode = flags.may_unmap || beyond ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
                                             : FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
        if (!beyond) {
            Result<void> result = co_await s_.io->allocate(mode, offset, length);
            if (!result.ok()) code = result.error().errno_value();
            if (code == EOPNOTSUPP && !flags.may_unmap) { // tmpfs knows holes only: made, and filled again
                Result<void> hole =
                    co_await s_.io->allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
                if (hole.ok()) hole = co_await s_.io->allocate(FALLOC_FL_KEEP_SIZE, offset, length);
                code = hole.ok() ? 0 : hole.error().errno_value();
            }
        }
        if (code == 0 && offset + length > s_.size) {
            if (ftruncate(s_.fd.get(), off_t(offset + length)) < 0)
                code = errno;
            else
                s_.size = offset + length;
        }
    }
    if (code == EOPNOTSUPP || code == ENOTTY || code == EINVAL || code == ENOSYS)
        co_return Error("Operation not supported", ENOTSUP); // the generic write_zeroes() then writes them out
    if (code) co_return describe(Error(std::strerror(code), code), "zero a part of");
    if (flags.durability == Durability::fua || writes_through(s_.cache)) {
        CO_TRY(co_await flush());
    }
    co_return Result<void>{};
}

Task<Result<void>> HostFile::discard(std::uint64_t offset, std::uint64_t length) {
    CO_TRY(check(offset, length, true));
    if (s_.discard == DiscardMode::ignore || offset >= s_.size || length == 0) co_return Result<void>{};
    if (s_.is_device) {
        int ignored = co_await range_ioctl(BLKDISCARD, offset, length); // a hint: a device without TRIM refuses
        (void)ignored;
        co_return Result<void>{};
    }
    Result<void> result = co_await s_.io->allocate(FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, length);
    if (!result.ok() && result.error().errno_value() != EOPNOTSUPP) co_return describe(result.error(), "discard in");
    co_return Result<void>{};
}

Task<Result<BlockStatus>> HostFile::status(std::uint64_t offset, std::uint64_t length) {
    BlockStatus status;
    status.allocated = true;
    status.host_offset = offset;
    status.host_file = s_.filename;
    status.length = length;
    status.data = true;
    if (offset >= s_.size) {
        status.data = false;
        status.zero = true;
        co_return status;
    }
    if (s_.is_device) co_return status;
    off_t data = lseek(s_.fd.get(), off_t(offset), SEEK_DATA);
    std::uint64_t end = s_.size;
    if (data < 0 && errno != ENXIO) co_return status; // the file system does not know: all data
    if (data < 0 || std::uint64_t(data) > offset) {   // in a hole
        status.data = false;
        status.zero = true;
        if (data >= 0)
            end = std::uint64_t(data);
        else
            end = std::max(end, offset + length);
    } else if (off_t hole = lseek(s_.fd.get(), off_t(offset), SEEK_HOLE); hole > off_t(offset)) {
        end = std::uint64_t(hole);
    }
    status.length = std::min(length, end - offset);
    co_return status;
}

// A new file has its first block, as QEMU's files do: programs that try out O_DIRECT on it find something to read.
Result<void> allocate_first_block(int fd, std::uint64_t size, std::string const& path) {
    std::array<std::uint8_t, 4096> const zeroes{};
    std::size_t const length = std::size_t(std::min<std::uint64_t>(size, zeroes.size()));
    if (length > 0 && ::pwrite(fd, zeroes.data(), length, 0) < 0)
        return error_from_errno(errno, "Could not resize file '{}'", path);
    return {};
}

Task<Result<void>> HostFile::resize(ResizeRequest request) {
    if (s_.read_only) co_return Error("Operation not permitted", EPERM);
    if (s_.is_device) {
        if (request.new_size_bytes == s_.size || (!request.exact && request.new_size_bytes < s_.size))
            co_return Result<void>{};
        co_return Error(request.new_size_bytes > s_.size ? "Cannot grow device files" : "Cannot resize device files",
                        EINVAL);
    }
    if (request.new_size_bytes > std::uint64_t(INT64_MAX)) co_return Error("File too large", EFBIG);
    std::uint64_t old = s_.size;
    if (ftruncate(s_.fd.get(), off_t(request.new_size_bytes)) < 0)
        co_return error_from_errno(errno, "Failed to resize the file '{}'", s_.filename);
    s_.size = request.new_size_bytes;
    if (old == 0 && request.preallocation == Preallocation::off) {
        CO_TRY(allocate_first_block(s_.fd.get(), s_.size, s_.filename));
    }
    if (request.new_size_bytes <= old) co_return Result<void>{};
    if (request.preallocation == Preallocation::falloc) {
        Result<void> result = co_await s_.io->allocate(0, old, request.new_size_bytes - old);
        if (!result.ok()) co_return describe(result.error(), "allocate space for");
    } else if (request.preallocation == Preallocation::full) {
        AlignedBuffer zeroes(1 << 20);
        if (!zeroes) co_return Error("Out of memory", ENOMEM);
        std::ranges::fill(zeroes.bytes(), 0);
        for (std::uint64_t at = old; at < s_.size;) {
            ConstBytes part(zeroes.data(), std::min<std::uint64_t>(zeroes.size(), s_.size - at));
            IoVector parts(part);
            Result<void> result = co_await s_.io->write(at, parts.const_spans());
            if (!result.ok()) co_return describe(result.error(), "allocate space for");
            at += part.size();
        }
    }
    co_return Result<void>{};
}

std::string plain_path(std::string_view name) {
    for (std::string_view prefix : {"file:", "host_device:", "host_cdrom:"})
        if (name.starts_with(prefix)) return std::string(name.substr(prefix.size()));
    return std::string(name);
}

// What the opener does and lets others do; two readers, or anyone with -U, get along.
LockRequest lock_request(OpenOptions const& options, bool read_only) {
    LockRequest request;
    request.uses = AccessSet(Access::consistent_read);
    if (!read_only) request.uses |= Access::write | Access::resize;
    bool share = options.share_rw || options.force_share;
    request.shares = share ? all_access : AccessSet(all_access & ~(Access::write | Access::resize));
    return request;
}

Result<UniqueFd> open_fd(std::string const& path, OpenOptions const& options, bool& read_only) {
    int flags = O_CLOEXEC | O_NONBLOCK | (bypasses_page_cache(options.cache) ? O_DIRECT : 0);
    int fd = ::open(path.c_str(), flags | (read_only ? O_RDONLY : O_RDWR));
    if (fd < 0 && !read_only && options.auto_read_only && (errno == EACCES || errno == EROFS || errno == EPERM)) {
        read_only = true;
        fd = ::open(path.c_str(), flags | O_RDONLY);
    }
    if (fd < 0) return error_from_errno(errno, "Could not open '{}'", path);
    return UniqueFd(fd);
}

Result<std::uint64_t> size_of(int fd, struct stat const& status, std::string const& path) {
    if (S_ISREG(status.st_mode)) return std::uint64_t(status.st_size);
    std::uint64_t size = 0;
    if (S_ISBLK(status.st_mode)) {
        if (ioctl(fd, BLKGETSIZE64, &size) < 0) return error_from_errno(errno, "Could not get the size of '{}'", path);
        return size;
    }
    return error("Could not open '{}': {}", path,
                 S_ISDIR(status.st_mode) ? "Is a directory" : "It is neither a regular file nor a block device");
}

// O_DIRECT needs sectors: the logical block size of a disk, a safe guess for a file.
std::uint32_t alignment_of(int fd, bool is_device, CacheMode cache) {
    int sector = 512;
    if (is_device && ioctl(fd, BLKSSZGET, &sector) < 0) sector = 4096;
    if (!bypasses_page_cache(cache)) return 1;
    return is_device ? std::uint32_t(std::max(sector, 512)) : 4096;
}

// The same file opened once more. io_uring keeps a reference to a file it works on until some time after close(), or
// after the process was killed; locks on a description it never sees are gone at once.
Result<UniqueFd> open_for_locks(int fd, std::string const& path) {
    UniqueFd again(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (!again) again = UniqueFd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)); // no /proc
    if (!again) return error_from_errno(errno, "Could not open '{}'", path);
    return again;
}

Task<Result<std::unique_ptr<BlockDevice>>> open_file(BlockContext& context, OpenOptions options) {
    HostFile::Setup setup;
    setup.filename = plain_path(options.filename);
    if (options.filename.empty()) co_return error("The 'file' block driver requires a file name");
    setup.read_only = options.read_only;
    Result<UniqueFd> fd = open_fd(setup.filename, options, setup.read_only);
    if (!fd.ok()) co_return fd.error();
    setup.fd = std::move(fd).value();
    struct stat status {};
    if (fstat(setup.fd.get(), &status) < 0) co_return error_from_errno(errno, "Could not open '{}'", setup.filename);
    CO_TRY_ASSIGN(setup.size, size_of(setup.fd.get(), status, setup.filename));
    if (options.aio == AioEngine::native && !bypasses_page_cache(options.cache))
        co_return error("aio=native was specified, but it requires cache.direct=on, which was not specified.");
    setup.is_device = S_ISBLK(status.st_mode);
    setup.cache = options.cache;
    setup.discard = options.discard;
    setup.alignment = alignment_of(setup.fd.get(), setup.is_device, options.cache);
    bool lock = options.locking == LockMode::on || (options.locking == LockMode::automatic && can_lock(setup.fd.get()));
    if (lock) {
        LockRequest request = lock_request(options, setup.read_only);
        CO_TRY_ASSIGN(setup.lock_fd, open_for_locks(setup.fd.get(), setup.filename));
        CO_TRY(lock_image(setup.lock_fd.get(), request, setup.filename));
    }
    if (options.aio == AioEngine::io_uring && !context.uring)
        co_return error("aio=io_uring was specified, but io_uring is not available on this host");
    bool ring = context.uring && (options.aio == AioEngine::automatic || options.aio == AioEngine::io_uring);
    bool page_cache = !bypasses_page_cache(options.cache);
    setup.io =
        ring ? context.uring->open(setup.fd.get(), page_cache) : make_threaded_file_io(context.pool, setup.fd.get());
    std::unique_ptr<BlockDevice> device = std::make_unique<HostFile>(context, std::move(setup));
    co_return align_requests(std::move(device));
}

// host_device and host_cdrom: what is no device is a mistake.
Task<Result<std::unique_ptr<BlockDevice>>> open_device(BlockContext& context, OpenOptions options) {
    std::string path = plain_path(options.filename);
    struct stat status {};
    if (stat(path.c_str(), &status) < 0) co_return error_from_errno(errno, "Could not open '{}'", path);
    if (!S_ISBLK(status.st_mode) && !S_ISCHR(status.st_mode))
        co_return error("'{0}' driver requires '{1}' to be either a character or block device",
                        options.format.empty() ? "host_device" : options.format, path);
    Result<std::unique_ptr<BlockDevice>> opened = co_await open_file(context, std::move(options));
    co_return opened;
}

struct CreateOptions {
    Preallocation preallocation = Preallocation::off;
    bool no_copy_on_write = false;
    std::optional<std::uint32_t> extent_size_hint;
};
Result<CreateOptions> parse_create_options(OptionValues const& values) {
    CreateOptions options;
    std::string mode = values.text_or("preallocation", "off");
    Result<Preallocation> preallocation = parse_preallocation(mode);
    if (!preallocation.ok()) return error("invalid parameter value: {}", mode);
    if (*preallocation == Preallocation::metadata) return error("Unsupported preallocation mode: metadata");
    options.preallocation = *preallocation;
    options.no_copy_on_write = TRY(values.boolean("nocow", false));
    if (values.has("extent_size_hint")) {
        std::uint64_t hint = TRY(values.size("extent_size_hint", 0));
        if (hint > UINT32_MAX) return error("Extent size hint is too large");
        options.extent_size_hint = std::uint32_t(hint);
    }
    return options;
}

// Hints for the host's file system on an empty file; one that does not know them is no failure.
void give_hints(int fd, CreateOptions const& options) {
    if (options.no_copy_on_write) {
        int flags = 0;
        if (ioctl(fd, FS_IOC_GETFLAGS, &flags) == 0) {
            flags |= FS_NOCOW_FL;
            (void)ioctl(fd, FS_IOC_SETFLAGS, &flags);
        }
    }
    if (options.extent_size_hint && *options.extent_size_hint > 0) {
        struct fsxattr attributes {};
        if (ioctl(fd, FS_IOC_FSGETXATTR, &attributes) == 0) {
            attributes.fsx_xflags |= FS_XFLAG_EXTSIZE;
            attributes.fsx_extsize = *options.extent_size_hint;
            (void)ioctl(fd, FS_IOC_FSSETXATTR, &attributes);
        }
    }
}

Task<Result<void>> preallocate(BlockContext& context, std::string path, std::uint64_t size, Preallocation mode) {
    OpenOptions open;
    open.filename = std::move(path);
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file, co_await open_file(context, std::move(open)));
    ResizeRequest resize{.new_size_bytes = size, .preallocation = mode};
    Result<void> result = co_await file->capabilities().resizable->resize(resize);
    co_return result;
}

Task<Result<void>> create(BlockContext& context, std::string filename, std::uint64_t size, OptionValues values) {
    std::string path = plain_path(filename);
    CO_TRY_ASSIGN(CreateOptions options, parse_create_options(values));
    // Not O_TRUNC: an image in use must not be emptied before its lock is ours.
    UniqueFd fd(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644));
    if (!fd) co_return error_from_errno(errno, "Could not create '{}'", path);
    struct stat status {};
    if (fstat(fd.get(), &status) < 0) co_return error_from_errno(errno, "Could not create '{}'", path);
    if (!S_ISREG(status.st_mode)) co_return Result<void>{}; // a device keeps its size
    LockRequest request{.uses = Access::write | Access::resize,
                        .shares = all_access & ~(Access::write | Access::resize)};
    if (can_lock(fd.get())) {
        CO_TRY(lock_image(fd.get(), request, path));
    }
    bool const preallocated = size > 0 && options.preallocation != Preallocation::off;
    bool const empty = ftruncate(fd.get(), 0) == 0;
    if (empty) give_hints(fd.get(), options);
    if (!empty || ftruncate(fd.get(), preallocated ? 0 : off_t(size)) < 0)
        co_return error_from_errno(errno, "Could not resize file '{}'", path);
    if (preallocated) {
        fd.reset(); // with its lock
        Result<void> result = co_await preallocate(context, path, size, options.preallocation);
        co_return result;
    }
    CO_TRY(allocate_first_block(fd.get(), size, path));
    co_return Result<void>{};
}

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"nocow", OptionType::boolean, "Turn off copy-on-write (valid only on btrfs)"},
    {"preallocation", OptionType::string, "Preallocation mode (allowed values: off, falloc, full)"},
    {"extent_size_hint", OptionType::size, "Extent size hint for the image file, 0 to disable"},
};

// `create` on a name under /dev, or by the driver's name.
Task<Result<void>> claim_device(BlockContext& context, std::string filename, std::uint64_t size, OptionValues options) {
    Result<void> result =
        co_await claim_existing_target(context, "host_device", std::move(filename), size, std::move(options));
    co_return result;
}
Task<Result<void>> claim_cdrom(BlockContext& context, std::string filename, std::uint64_t size, OptionValues options) {
    Result<void> result =
        co_await claim_existing_target(context, "host_cdrom", std::move(filename), size, std::move(options));
    co_return result;
}

constexpr OptionSpec open_options[] = {
    {"aio-max-batch", OptionType::number, "accepted: batches are as long as they get"},
    {"drop-cache", OptionType::boolean, "accepted: the page cache is not dropped"},
    {"x-check-cache-dropped", OptionType::boolean, "accepted"},
};

} // namespace

Protocol file_protocol() {
    return {.name = "file",
            .matches = [](std::string_view name) { return name.starts_with("file:"); },
            .open = open_file,
            .create = create,
            .create_options = create_options,
            .open_options = open_options};
}
Protocol host_device_protocol() {
    return {.name = "host_device",
            .matches = [](std::string_view name) { return name.starts_with("host_device:"); },
            .open = open_device,
            .create = claim_device,
            .create_options = existing_target_options(),
            .open_options = open_options};
}
Protocol host_cdrom_protocol() {
    return {.name = "host_cdrom",
            .matches = [](std::string_view name) { return name.starts_with("host_cdrom:"); },
            .open = open_device,
            .create = claim_cdrom,
            .create_options = existing_target_options(),
            .open_options = open_options};
}

} // namespace vmm::block
