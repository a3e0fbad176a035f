#include "firmware/loader/file_source.h"

#include "vmm/base/checked.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace vmm::firmware {

namespace {
Result<Bytes> read_stream(int fd, std::string const& path, FileSource::HeadCheck const& check_head) {
    Bytes bytes;
    bool checked = !check_head;
    for (;;) {
        std::size_t const have = bytes.size();
        bytes.resize(have + MiB);
        ssize_t const n = ::read(fd, bytes.data() + have, MiB);
        int const why = errno;
        bytes.resize(have + std::size_t(std::max<ssize_t>(n, 0)));
        if (n < 0 && why == EINTR) continue;
        if (n < 0) return error_from_errno(why, "could not read '{}'", path);
        if (!checked && (n == 0 || bytes.size() >= FileSource::head_size)) {
            TRY(check_head(std::span(bytes).first(std::min(bytes.size(), FileSource::head_size)), path));
            checked = true;
        }
        if (n == 0) return bytes;
        if (bytes.size() > FileSource::max_size)
            return error("'{}' is larger than {} bytes, the most a boot file may have", path, FileSource::max_size);
    }
}
} // namespace

Result<FileSource> FileSource::open(std::string const& path, char const* what, HeadCheck const& check_head) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat st {};
    if (!fd || ::fstat(fd.get(), &st) != 0) return error_from_errno(errno, "{} '{}'", what, path);
    if (S_ISDIR(st.st_mode)) return errno_error(EISDIR, fmt::format("{} '{}'", what, path));
    if (!S_ISREG(st.st_mode)) return of_bytes(path, TRY(read_stream(fd.get(), path, check_head)));
    if (std::uint64_t(st.st_size) > max_size)
        return error("'{}' has {} bytes, more than the {} a boot file may have", path, st.st_size, max_size);
    FileSource source;
    source.path_ = path;
    source.fd_ = std::move(fd);
    source.size_ = std::uint64_t(st.st_size);
    if (check_head) {
        Bytes head(std::size_t(std::min<std::uint64_t>(source.size_, head_size)));
        TRY(source.read_at(0, head));
        TRY(check_head(head, path));
    }
    return source;
}

FileSource FileSource::of_bytes(std::string name, Bytes bytes) {
    FileSource source;
    source.path_ = std::move(name);
    source.size_ = bytes.size();
    source.bytes_ = std::move(bytes);
    return source;
}

Result<Bytes> FileSource::read() const {
    if (!fd_) return bytes_;
    Bytes bytes(size_);
    TRY(read_at(0, bytes));
    return bytes;
}

Result<void> FileSource::read_at(std::uint64_t offset, std::span<std::uint8_t> to) const {
    VMM_ASSERT(offset <= size_ && to.size() <= size_ - offset);
    if (!fd_) {
        std::copy_n(bytes_.begin() + std::ptrdiff_t(offset), to.size(), to.begin());
        return {};
    }
    for (std::size_t done = 0; done < to.size();) {
        ssize_t const n = ::pread(fd_.get(), to.data() + done, to.size() - done, off_t(offset + done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return error_from_errno(errno, "could not read '{}'", path_);
        if (n == 0) return error("'{}' became shorter while the machine was running", path_);
        done += std::size_t(n);
    }
    return {};
}

} // namespace vmm::firmware
