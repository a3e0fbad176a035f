// MappedImage: what all images have in common whose units (clusters, blocks, grains) are found through a table. A
// format says where a unit lies, gives it a place and keeps the tables; reading, copy-on-write, zeroing and mapping are
// here.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/context.h"
#include "block/core/factory.h"
#include "block/core/image.h"
#include "block/core/sync.h"

#include <optional>
#include <string>
#include <vector>

namespace vmm::block {

// Where one unit of the virtual disk is.
struct Mapping {
    enum class Kind : std::uint8_t {
        absent,     // nothing here: the backing image, or zeroes
        zero,       // reads as zero, whatever the backing image holds
        data,       // plain bytes at `host_offset` of `device`
        compressed, // the format's read_compressed() knows
    };
    Kind kind = Kind::absent;
    std::uint64_t start = 0, length = 0; // the unit, in the virtual disk; clipped to the disk's end
    BlockDevice* device = nullptr;
    std::uint64_t host_offset = 0; // of `start`
    std::string const* host_file = nullptr;
    bool ask_file = false;     // preallocated: the file's holes tell what is zero
    bool file_is_disk = false; // and it is nothing but the disk: its holes are holes of the disk, not zeroes with room
    std::uint64_t cookie = 0;  // compressed: the format's own word (offset and size)
};

// Where a unit that had no place of its own goes.
struct NewPlace {
    BlockDevice* device = nullptr;
    std::uint64_t host_offset = 0;
    bool reads_zero = false; // the place is known to hold zeroes: only data need be written
};

// Metadata is written back, not through: a unit's data goes to the file first, its table entry stays in memory until
// flush() (or close), which makes data stable, then writes the tables. A kill between flushes loses no flushed byte and
// leaves at most space nobody refers to.
class MappedImage : public Image, public AllocationMap, public SparseCapable, public InfoSource {
public:
    std::string_view format_name() const override { return name_; }
    BlockDevice* file() override { return file_.get(); }
    BackingReference backing_reference() const override { return {}; }
    Task<Result<void>> close() override;
    Result<std::uint64_t> allocated_size_bytes() override;
    std::uint64_t size_bytes() const override { return size_; }
    bool read_only() const override { return file_->read_only(); }
    Limits limits() const override;
    Capabilities capabilities() override;
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override;
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<FormatInfo>> format_info() override;

protected:
    // `name`: static storage. `unit`: bytes of the common unit, 0 if extents differ; a hint for limits() and info.
    MappedImage(FormatOpenArgs args, std::string_view name, std::uint64_t size, std::uint64_t unit);

    // The unit that holds `offset`, or nothing when load() must be awaited first.
    virtual Result<std::optional<Mapping>> find(std::uint64_t offset) = 0;
    // Makes the next find(offset) succeed (for formats whose tables are not all in memory).
    virtual Task<Result<void>> load(std::uint64_t offset);
    // Finds room for the unit at `was.start`, which is absent, zero or compressed. Called under that unit's lock.
    virtual Task<Result<NewPlace>> allocate(Mapping was);
    // The unit's data is in its new place: the tables (in memory) say so from now on.
    virtual void publish(Mapping const& was, NewPlace place);
    // Marks a whole absent or compressed unit as zero without writing data; false: the format has no such mark.
    virtual bool mark_zero(Mapping const& was);
    // The whole unit's bytes; `unit` has was.length bytes.
    virtual Task<Result<void>> read_compressed(Mapping was, Bytes unit);
    // Writes dirty tables, data being stable already, and makes them stable.
    virtual Task<Result<void>> write_back();
    // The format has nothing to write back.
    virtual bool clean() const { return true; }
    // Encryption by sector; only images that say encrypted() see these.
    virtual bool encrypted() const { return false; }
    virtual void decrypt(std::uint64_t offset, Bytes bytes);
    virtual void encrypt(std::uint64_t offset, Bytes bytes);

    // Where a file holds the image's own structures. A table that leads guest data there lies: nothing is written.
    void add_metadata(BlockDevice* device, std::uint64_t start, std::uint64_t length, std::string_view what);

    // Makes the file at least `end` bytes long with zeroes; never shortens it, also with several callers at once.
    Task<Result<void>> extend_file(BlockDevice& device, std::uint64_t end);

    BlockContext& context_;
    std::unique_ptr<BlockDevice> file_;
    std::string file_name_; // of file_, for messages and siblings
    std::string_view name_;
    std::uint64_t size_;
    std::uint64_t unit_;
    std::vector<std::string> host_files_; // all files the image consists of, for its size on the host
    DebugEvents* debug_;
    RangeLocks allocations_; // held over a unit while it gets its place

private:
    struct Area {
        BlockDevice* device;
        std::uint64_t start, end;
        std::string_view what; // static storage
    };
    // EIO when the place of `at` is one of metadata.
    Result<void> check_place(Mapping const& at);
    // Tells the user, once, what is wrong with the image: callers may only see an errno.
    Error report(Error error);
    Task<Result<Mapping>> mapping_at(std::uint64_t offset);
    Task<Result<void>> read_piece(Mapping at, std::uint64_t offset, IoSpans to);
    Task<Result<void>> read_encrypted(Mapping at, std::uint64_t offset, IoSpans to);
    Task<Result<void>> write_piece(Mapping at, std::uint64_t offset, ConstIoSpans from);
    Task<Result<void>> write_encrypted(Mapping at, std::uint64_t offset, ConstIoSpans from);
    Task<Result<void>> write_in_place(Mapping at, std::uint64_t offset, ConstIoSpans from);
    Task<Result<void>> write_new(std::uint64_t offset, ConstIoSpans from);
    Task<Result<std::uint64_t>> write_new_units(std::uint64_t offset, ConstIoSpans from);
    Task<Result<void>> fill_new(Mapping was, NewPlace place, std::uint64_t offset, ConstIoSpans from);
    Task<Result<void>> zero_piece(Mapping at, std::uint64_t offset, std::uint64_t length, ZeroFlags flags);
    Task<Result<void>> old_content(Mapping was, Bytes unit);
    // `at` and the units after it that lie behind it in the same file, up to `limit` of the virtual disk, as far as the
    // tables in memory say.
    Result<Mapping> stretch(Mapping at, std::uint64_t limit);
    std::vector<Area> metadata_; // disjoint and in order once sorted_
    bool sorted_ = true, reported_ = false;
    AsyncMutex extending_;
    AsyncMutex writing_back_;
};

// Compressed data of one unit: decodes a deflate stream (zlib wrapper or raw) on the pool. The result must fill `to`.
enum class DeflateKind : std::uint8_t { zlib, raw };
Task<Result<void>> inflate_on_pool(BlockContext& context, DeflateKind kind, std::vector<std::uint8_t> from, Bytes to);
// Empty when the result would not be smaller than `limit`. window_bits: 9 to 15, as deflateInit2.
Task<std::vector<std::uint8_t>> deflate_on_pool(BlockContext& context, DeflateKind kind, int window_bits,
                                                ConstBytes from, std::size_t limit);

// Options a driver's open() must refuse: a format that cannot be written, asked for read-write.
Result<void> require_read_only(FormatOpenArgs const& args, std::string_view format);

// A part of a file whose whole length must exist: "NAME: FIELD lies beyond the end of the file".
Result<void> check_inside_file(BlockDevice const& file, std::uint64_t offset, std::uint64_t length,
                               std::string_view what);

} // namespace vmm::block
