// FuseServer: a directory of fixed-size files, windows of one block device, served through FUSE.
#pragma once
#include "block/core/block_device.h"
#include "vmm/base/event_loop.h"

#include <functional>
#include <memory>
#include <string>
#include <vector>

struct fuse_session;

namespace vmm::block {

struct FuseWindow {
    std::string name;
    std::uint64_t offset = 0, length = 0;
};

// Serves from the loop until unmounted from outside or told to stop(). Requests run at the same time. Reads and writes
// bypass the kernel's page cache, so that the whole disk and its partitions always show the same bytes.
class FuseServer {
public:
    // Mounts on `directory`. The device outlives the server; `ended` is called once when the mount has gone.
    static Result<std::unique_ptr<FuseServer>> mount(EventLoop& loop, BlockDevice& device,
                                                     std::vector<FuseWindow> windows, std::string const& directory,
                                                     std::function<void()> ended);
    ~FuseServer();
    FuseServer(FuseServer const&) = delete;
    FuseServer& operator=(FuseServer const&) = delete;

    // True while requests are being worked on: do not destroy the device yet.
    bool busy() const { return in_flight_ > 0; }
    void unmount();

    // What the FUSE callbacks use.
    struct Callbacks;

private:
    FuseServer(EventLoop& loop, BlockDevice& device, std::vector<FuseWindow> windows, std::function<void()> ended)
        : loop_(loop), device_(device), windows_(std::move(windows)), ended_(std::move(ended)) {}
    void receive();

    EventLoop& loop_;
    BlockDevice& device_;
    std::vector<FuseWindow> windows_;
    std::function<void()> ended_;
    fuse_session* session_ = nullptr;
    bool mounted_ = false;
    unsigned in_flight_ = 0;
};

} // namespace vmm::block
