#include "firmware/loader/file_source.h"

#include "vmm/base/checked.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

namespace vmm::firmware {

namespace {
Result<Bytes> read_stream(int fd, std::string const& path) {
    Bytes bytes;
    for (;;) {
        std::size_t const have = bytes.size();
        bytes.resize(have + MiB);
        ssize_t const n = ::read(fd, bytes.data() + have, MiB);
        int const why = errno;
        bytes.resize(have + std::size_t(std::max<ssize_t>(n, 0)));
        if (n < 0 && why == EINTR) continue;
        if (n < 0) return error_from_errno(why, "could not read '{}'", path);
        if (n == 0) return bytes;
        if (bytes.size() > FileSource::max_size)
            return error("'{}' is larger than {} bytes, the most a boot file may have", path, FileSource::max_size);
    }
}
} // namespace

Result<FileSource> FileSource::open(std::string const& path, char const* what) {
    UniqueFd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    struct stat st {};
    if (!fd || ::fstat(fd.get(), &st) != 0) return error_from_errno(errno, "{} '{}'", what, path);
    if (S_ISDIR(st.st_mode)) return errno_error(EISDIR, fmt::format("{} '{}'", what, path));
    if (!S_ISREG(st.st_mode)) return of_bytes(path, TRY(read_stream(fd.get(), path)));
    if (std::uint64_t(st.st_size) > max_size)
        return error("'{}' has {} bytes, more than the {} a boot file may have", path, st.st_size, max_size);
    FileSource source;
    source.path_ = path;
    source.fd_ = std::move(fd);
    source.size_ = std::uint64_t(st.st_size);
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
    for (std::uint64_t done = 0; done < size_;) {
        ssize_t const n = ::pread(fd_.get(), bytes.data() + done, size_ - done, off_t(done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return error_from_errno(errno, "could not read '{}'", path_);
        if (n == 0) return error("'{}' became shorter while the machine was running", path_);
        done += std::uint64_t(n);
    }
    return bytes;
}

} // namespace vmm::firmware
