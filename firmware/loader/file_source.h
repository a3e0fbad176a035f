// FileSource: a kernel or initrd file that can be read again at every reset of the machine.
#pragma once
#include "vmm/base/result.h"
#include "vmm/base/unique_fd.h"

#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace vmm::firmware {

using Bytes = std::vector<std::uint8_t>;

// Keeps a regular file open and reads it on demand (its bytes are not kept in our memory); what cannot be read twice (a
// pipe) or has no file (a packed directory) is held.
class FileSource {
public:
    // What a file must pass with its first head_size bytes (all of them when it has fewer) before more is read of it.
    using HeadCheck = std::function<Result<void>(std::span<std::uint8_t const> head, std::string const& path)>;

    // `what` begins the message of a failure: "could not open kernel file 'x': No such file or directory".
    static Result<FileSource> open(std::string const& path, char const* what, HeadCheck const& check_head = {});
    // Bytes that exist only here; `name` stands for the path in messages.
    static FileSource of_bytes(std::string name, Bytes bytes);

    std::string const& path() const { return path_; }
    // Size at opening, in bytes.
    std::uint64_t size() const { return size_; }
    // The whole content. An error when it can no longer be read.
    Result<Bytes> read() const;
    // The bytes at [offset, offset + to.size()), which lie inside size().
    Result<void> read_at(std::uint64_t offset, std::span<std::uint8_t> to) const;

    // Largest file taken, in bytes. More would not fit below 4 GiB, where boot files must lie.
    static constexpr std::uint64_t max_size = std::uint64_t(3) << 30;
    static constexpr std::size_t head_size = 64 << 10;

private:
    std::string path_;
    UniqueFd fd_; // none: bytes_ is the content
    Bytes bytes_;
    std::uint64_t size_ = 0;
};

} // namespace vmm::firmware
