#include "block/io/image_lock.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <memory>

namespace vmm::block {

namespace {

constexpr int uses_base = 100, forbids_base = 200, access_count = 4;
constexpr std::string_view access_names[access_count] = {"consistent read", "write", "write unchanged", "resize"};

struct flock byte_lock(short type, int byte) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return lock;
}

bool take(int fd, int byte) {
    struct flock lock = byte_lock(F_RDLCK, byte);
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

// Whether someone else holds `byte`.
bool held_elsewhere(int fd, int byte) {
    struct flock lock = byte_lock(F_WRLCK, byte);
    return fcntl(fd, F_OFD_GETLK, &lock) == 0 && lock.l_type != F_UNLCK;
}

// One "lock:" line of /proc/PID/fdinfo/N ("lock:\t1: OFDLCK  ADVISORY  READ 5330 fe:00:10952882 100 101"): does it
// cover `byte` of the file `id` ("fe:00:123")?
bool line_covers(std::string const& line, std::string const& id, int byte) {
    std::size_t at = line.find(" " + id + " ");
    if (!line.starts_with("lock:") || line.find("OFDLCK") == std::string::npos || at == std::string::npos) return false;
    char const* rest = line.c_str() + at + id.size() + 2;
    char* end = nullptr;
    long first = std::strtol(rest, &end, 10);
    std::string last = end;
    return first <= byte && (last.find("EOF") != std::string::npos || std::strtol(last.c_str(), nullptr, 10) >= byte);
}

using Dir = std::unique_ptr<DIR, int (*)(DIR*)>;

// `except`: our own descriptor, which by now holds the byte too.
bool process_holds(std::string const& pid, std::string const& id, int byte, std::string const& except) {
    std::string base = "/proc/" + pid + "/fdinfo";
    Dir dir(opendir(base.c_str()), closedir);
    if (!dir) return false;
    while (dirent* entry = readdir(dir.get())) {
        if (except == entry->d_name) continue;
        std::ifstream info(base + "/" + entry->d_name);
        for (std::string line; std::getline(info, line);)
            if (line_covers(line, id, byte)) return true;
    }
    return false;
}

// "It is in use by PID 12 (qemu-io)." or "" when we may not look into the holder's process.
std::string describe_holder(int fd, int byte) {
    struct stat status {};
    Dir proc(opendir("/proc"), closedir);
    if (fstat(fd, &status) < 0 || !proc) return {};
    std::string id = fmt::format("{:02x}:{:02x}:{}", major(status.st_dev), minor(status.st_dev), status.st_ino);
    while (dirent* entry = readdir(proc.get())) {
        std::string pid = entry->d_name;
        if (pid.empty() || pid.find_first_not_of("0123456789") != std::string::npos) continue;
        std::string own = pid == std::to_string(getpid()) ? std::to_string(fd) : "";
        if (!process_holds(pid, id, byte, own)) continue;
        std::ifstream comm("/proc/" + pid + "/comm");
        std::string name;
        std::getline(comm, name);
        return fmt::format("\nIt is in use by process {} ({}).", pid, name);
    }
    return {};
}

Error lock_error(int fd, int conflicting_byte, std::string_view what, std::string const& filename) {
    return Error(fmt::format("Failed to get {} lock\nIs another process using the image [{}]?{}", what, filename,
                             describe_holder(fd, conflicting_byte)),
                 EAGAIN);
}

} // namespace

bool can_lock(int fd) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    return fcntl(fd, F_OFD_GETLK, &lock) == 0;
}

Result<void> lock_image(int fd, LockRequest request, std::string const& filename) {
    auto has = [](AccessSet set, int n) { return (set >> n & 1) != 0; };
    for (int n = 0; n < access_count; ++n) {
        if (has(request.uses, n) && !take(fd, uses_base + n))
            return error_from_errno(errno, "Could not lock '{}'", filename);
        if (!has(request.shares, n) && !take(fd, forbids_base + n))
            return error_from_errno(errno, "Could not lock '{}'", filename);
    }
    // Both sides lock first and look afterwards, so of two racing openers at least one sees the other.
    for (int n = 0; n < access_count; ++n)
        if (has(request.uses, n) && held_elsewhere(fd, forbids_base + n))
            return lock_error(fd, forbids_base + n, fmt::format("\"{}\"", access_names[n]), filename);
    for (int n = 0; n < access_count; ++n)
        if (!has(request.shares, n) && held_elsewhere(fd, uses_base + n))
            return lock_error(fd, uses_base + n, fmt::format("shared \"{}\"", access_names[n]), filename);
    return {};
}

} // namespace vmm::block
