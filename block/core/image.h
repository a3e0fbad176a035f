// Image: an opened image of some format: a BlockDevice with a file (or several) under it and perhaps a backing image.
#pragma once
#include "block/core/block_device.h"
#include "block/core/open_options.h"

#include <memory>
#include <string>

namespace vmm::block {

// What an image's header says about its backing file.
struct BackingReference {
    std::string filename; // as written in the header; empty: no backing file
    std::string format;   // empty: not recorded
};

// A format driver's open() returns one without its backing image attached; the factory opens the chain and attaches it.
// Reads of unallocated parts go to backing() (read_backing in chain.h): the driver's own read does that.
class Image : public BlockDevice {
public:
    // Driver name: "qcow2".
    virtual std::string_view format_name() const = 0;
    // The protocol-level device the image lies in; for multi-file formats the one that was named. Null for none
    // (null-co).
    virtual BlockDevice* file() = 0;
    virtual BackingReference backing_reference() const = 0;
    // Makes everything stable, writes what the format keeps until the end (clean flag, bitmaps) and detaches. Must be
    // called once before destruction when opened read-write; afterwards only destruction is allowed.
    virtual Task<Result<void>> close() = 0;
    // Bytes the image occupies on the host (st_blocks of its files), if known.
    virtual Result<std::uint64_t> allocated_size_bytes() = 0;

    Image* backing() const { return backing_.get(); }
    // Factory and tools (rebase, commit) only; no request in flight.
    void set_backing(std::unique_ptr<Image> backing) { backing_ = std::move(backing); }
    std::unique_ptr<Image> take_backing() { return std::move(backing_); }

    // The name the image was opened by, as messages and `info` show it ("json:{...}" when options cannot be said in a
    // name).
    std::string const& filename() const { return filename_; }
    void set_filename(std::string filename) { filename_ = std::move(filename); }
    // The backing file's resolved name (relative to this image's directory), even while backing() is not attached.
    std::string const& full_backing_filename() const { return full_backing_filename_; }
    void set_full_backing_filename(std::string name) { full_backing_filename_ = std::move(name); }
    // The format was guessed as raw: writes that would make the first sector look like another format are refused.
    bool probed_raw() const { return probed_raw_; }
    void set_probed_raw() { probed_raw_ = true; }
    // Whether writes of nothing but zeroes become zero requests; the driver's write() does that (write_if_zero).
    DetectZeroes zero_detection() const { return zero_detection_; }
    void set_detect_zeroes(DetectZeroes mode) { zero_detection_ = mode; }

private:
    std::string filename_;
    std::string full_backing_filename_;
    std::unique_ptr<Image> backing_;
    bool probed_raw_ = false;
    DetectZeroes zero_detection_ = DetectZeroes::off;
};

// For write() of an image with zero_detection(): true when `from` was nothing but zeroes and has been written as such.
Task<Result<bool>> write_if_zero(Image& image, std::uint64_t offset, ConstIoSpans from, Durability durability);

} // namespace vmm::block
