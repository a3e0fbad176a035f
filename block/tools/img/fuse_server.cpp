#include "block/tools/img/fuse_server.h"

#define FUSE_USE_VERSION 35
#include <fuse_lowlevel.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace vmm::block {

namespace {
constexpr double attribute_seconds = 60;
constexpr fuse_ino_t first_file = 2; // 1 is the directory
constexpr std::size_t largest_read = 1 << 20;
} // namespace

// The functions FUSE calls; each has the server as user data.
struct FuseServer::Callbacks {
    static FuseServer& server(fuse_req_t request) { return *static_cast<FuseServer*>(fuse_req_userdata(request)); }
    static FuseWindow const* window(FuseServer& s, fuse_ino_t inode) {
        return inode >= first_file && inode - first_file < s.windows_.size() ? &s.windows_[inode - first_file]
                                                                             : nullptr;
    }
    static struct stat attributes(FuseServer& s, fuse_ino_t inode) {
        struct stat st {};
        st.st_ino = inode;
        st.st_uid = getuid();
        st.st_gid = getgid();
        if (FuseWindow const* w = window(s, inode)) {
            st.st_mode = mode_t(S_IFREG) | (s.device_.read_only() ? 0400 : 0600);
            st.st_nlink = 1;
            st.st_size = off_t(w->length);
            st.st_blocks = blkcnt_t(w->length / 512);
        } else {
            st.st_mode = S_IFDIR | 0500;
            st.st_nlink = 2;
        }
        return st;
    }
    static int code_of(Result<void> const& result) {
        if (result.ok()) return 0;
        return result.error().errno_value() ? result.error().errno_value() : EIO;
    }

    static void lookup(fuse_req_t request, fuse_ino_t parent, char const* name) {
        FuseServer& s = server(request);
        auto found = std::ranges::find(s.windows_, std::string_view(name), &FuseWindow::name);
        if (parent != FUSE_ROOT_ID || found == s.windows_.end()) {
            fuse_reply_err(request, ENOENT);
            return;
        }
        fuse_entry_param entry{};
        entry.ino = first_file + fuse_ino_t(found - s.windows_.begin());
        entry.attr_timeout = entry.entry_timeout = attribute_seconds;
        entry.attr = attributes(s, entry.ino);
        fuse_reply_entry(request, &entry);
    }
    static void getattr(fuse_req_t request, fuse_ino_t inode, fuse_file_info*) {
        struct stat st = attributes(server(request), inode);
        fuse_reply_attr(request, &st, attribute_seconds);
    }
    // A disk keeps its size: truncation (`>disk`, O_TRUNC) is ignored as on a block device.
    static void setattr(fuse_req_t request, fuse_ino_t inode, struct stat*, int, fuse_file_info* info) {
        getattr(request, inode, info);
    }
    static void readdir(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
        FuseServer& s = server(request);
        if (inode != FUSE_ROOT_ID) {
            fuse_reply_err(request, ENOTDIR);
            return;
        }
        std::vector<char> buffer(size);
        std::size_t used = 0;
        for (auto at = std::size_t(offset); at < s.windows_.size() + 2; ++at) {
            struct stat st = attributes(s, at < 2 ? FUSE_ROOT_ID : first_file + at - 2);
            char const* name = at == 0 ? "." : at == 1 ? ".." : s.windows_[at - 2].name.c_str();
            std::size_t needed =
                fuse_add_direntry(request, buffer.data() + used, size - used, name, &st, off_t(at + 1));
            if (needed > size - used) break;
            used += needed;
        }
        fuse_reply_buf(request, buffer.data(), used);
    }
    static void open(fuse_req_t request, fuse_ino_t inode, fuse_file_info* info) {
        FuseServer& s = server(request);
        if (!window(s, inode)) {
            fuse_reply_err(request, EISDIR);
        } else if (s.device_.read_only() && (info->flags & O_ACCMODE) != O_RDONLY) {
            fuse_reply_err(request, EROFS);
        } else {
            info->direct_io = 1;
            fuse_reply_open(request, info);
        }
    }
    static void read(fuse_req_t request, fuse_ino_t inode, std::size_t size, off_t offset, fuse_file_info*) {
        FuseServer& s = server(request);
        FuseWindow const* w = window(s, inode);
        if (!w || offset < 0) {
            fuse_reply_err(request, EISDIR);
            return;
        }
        std::uint64_t at = std::min<std::uint64_t>(std::uint64_t(offset), w->length);
        spawn(read_task(s, request, w->offset + at, std::min({size, largest_read, std::size_t(w->length - at)})));
    }
    static Task<void> read_task(FuseServer& s, fuse_req_t request, std::uint64_t at, std::size_t length) {
        ++s.in_flight_;
        std::vector<std::uint8_t> data(length);
        Bytes all(data);
        Result<void> result;
        if (length > 0) result = co_await read_bytes(s.device_, at, all);
        if (result.ok())
            fuse_reply_buf(request, reinterpret_cast<char const*>(data.data()), length);
        else
            fuse_reply_err(request, code_of(result));
        --s.in_flight_;
    }
    static void write(fuse_req_t request, fuse_ino_t inode, char const* data, std::size_t size, off_t offset,
                      fuse_file_info*) {
        FuseServer& s = server(request);
        FuseWindow const* w = window(s, inode);
        if (!w || offset < 0 || std::uint64_t(offset) >= w->length) {
            fuse_reply_err(request, w ? ENOSPC : EISDIR);
            return;
        }
        std::size_t length = std::min<std::uint64_t>(size, w->length - std::uint64_t(offset));
        // `data` is gone when we return.
        spawn(
            write_task(s, request, w->offset + std::uint64_t(offset), std::vector<std::uint8_t>(data, data + length)));
    }
    static Task<void> write_task(FuseServer& s, fuse_req_t request, std::uint64_t at, std::vector<std::uint8_t> data) {
        ++s.in_flight_;
        ConstBytes all(data);
        Result<void> result = co_await write_bytes(s.device_, at, all);
        if (result.ok())
            fuse_reply_write(request, data.size());
        else
            fuse_reply_err(request, code_of(result));
        --s.in_flight_;
    }
    static void fsync(fuse_req_t request, fuse_ino_t, int, fuse_file_info*) {
        spawn(flush_task(server(request), request));
    }
    static Task<void> flush_task(FuseServer& s, fuse_req_t request) {
        ++s.in_flight_;
        Result<void> result;
        if (!s.device_.read_only()) result = co_await s.device_.flush();
        fuse_reply_err(request, code_of(result));
        --s.in_flight_;
    }
    static fuse_lowlevel_ops table() {
        fuse_lowlevel_ops ops{};
        ops.lookup = lookup;
        ops.getattr = getattr;
        ops.setattr = setattr;
        ops.readdir = readdir;
        ops.open = open;
        ops.read = read;
        ops.write = write;
        ops.fsync = fsync;
        return ops;
    }
};

Result<std::unique_ptr<FuseServer>> FuseServer::mount(EventLoop& loop, BlockDevice& device,
                                                      std::vector<FuseWindow> windows, std::string const& directory,
                                                      std::function<void()> ended) {
    if (access("/dev/fuse", F_OK) != 0)
        return error_from_errno(errno, "Could not open '/dev/fuse' (is the kernel module loaded: modprobe fuse?)");
    std::unique_ptr<FuseServer> server(new FuseServer(loop, device, std::move(windows), std::move(ended)));
    // auto_unmount: fusermount3 stays behind and unmounts when this process dies, however it dies.
    fuse_args args = FUSE_ARGS_INIT(0, nullptr);
    for (char const* word : {"vmm-img", "-oauto_unmount", "-ofsname=vmm-img", "-odefault_permissions"})
        fuse_opt_add_arg(&args, word);
    fuse_lowlevel_ops ops = Callbacks::table();
    server->session_ = fuse_session_new(&args, &ops, sizeof(ops), server.get());
    fuse_opt_free_args(&args);
    if (!server->session_) return error("Could not start a FUSE session");
    if (fuse_session_mount(server->session_, directory.c_str()) != 0)
        return error("Could not mount on '{}' (the line above says why)", directory);
    server->mounted_ = true;
    loop.watch(fuse_session_fd(server->session_), Ready::read, [s = server.get()](Ready) { s->receive(); });
    return server;
}

void FuseServer::receive() {
    fuse_buf buffer{};
    int length = fuse_session_receive_buf(session_, &buffer);
    if (length > 0) fuse_session_process_buf(session_, &buffer);
    std::free(buffer.mem);
    bool gone = length == 0 || (length < 0 && length != -EINTR && length != -EAGAIN);
    if ((gone || fuse_session_exited(session_)) && mounted_) unmount();
}

void FuseServer::unmount() {
    if (!mounted_) return;
    mounted_ = false;
    loop_.unwatch(fuse_session_fd(session_));
    fuse_session_unmount(session_);
    ended_();
}

FuseServer::~FuseServer() {
    if (!session_) return;
    if (mounted_) {
        loop_.unwatch(fuse_session_fd(session_));
        fuse_session_unmount(session_);
    }
    fuse_session_destroy(session_);
}

} // namespace vmm::block
