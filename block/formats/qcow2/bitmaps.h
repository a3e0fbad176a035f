// BitmapTable: persistent dirty bitmaps stored in the image.
#pragma once
#include "block/core/capabilities.h"
#include "block/formats/qcow2/store.h"

#include <string>
#include <vector>

namespace vmm::block::qcow2 {

// Bitmaps lie unread in the file until somebody asks for their bits or writes to a disk with an enabled one. Before the
// first change those in memory are marked in use on disk, so that a crash cannot leave a stale bitmap that looks good;
// store() (on close) writes them out and clears the mark.
class BitmapTable final : public DirtyBitmaps {
public:
    explicit BitmapTable(Store& store) : store_(store), g_(store.geometry()) {}

    // Reads the directory; every field is checked.
    Task<Result<void>> load();
    // Enabled bitmaps are about to see writes: called before every write, cheap after the first.
    bool ready_to_record() const { return recording_ || !any_enabled(); }
    Task<Result<void>> start_recording();
    // The stretch was written to.
    void record(std::uint64_t offset, std::uint64_t length);
    // The disk gets another size.
    Task<Result<void>> resize(std::uint64_t new_size);
    // Writes what changed; afterwards the file is as if closed.
    Task<Result<void>> store();
    // Host clusters of directory, tables and data, for a check.
    Task<Result<std::vector<Extent>>> extents();

    std::vector<BitmapInfo> bitmaps() const override;
    Task<Result<void>> add_bitmap(BitmapInfo bitmap) override;
    Task<Result<void>> remove_bitmap(std::string name) override;
    Task<Result<void>> clear_bitmap(std::string name) override;
    Task<Result<void>> set_bitmap_enabled(std::string name, bool enabled) override;
    Task<Result<void>> mark_dirty(std::string name, std::uint64_t offset, std::uint64_t length) override;
    Task<Result<Stretch>> bitmap_status(std::string name, std::uint64_t offset) override;

private:
    struct Bitmap {
        std::string name;
        unsigned granularity_bits = 16;
        bool enabled = true;
        bool in_use = false; // was so when opened: its bits mean nothing
        bool other = false;  // a kind or extra data we do not understand: left alone
        std::uint32_t flags = 0;
        std::uint8_t type = 1;
        std::vector<std::uint8_t> extra;
        std::uint64_t table_offset = 0; // 0: not in the file yet
        std::uint32_t table_entries = 0;
        bool loaded = false, changed = false, marked = false;
        std::vector<std::uint8_t> bits; // when loaded
    };
    bool any_enabled() const;
    Result<Bitmap*> usable(std::string const& name);
    std::uint64_t bit_count(Bitmap const& b, std::uint64_t disk) const;
    Result<std::size_t> parse_entry(ConstBytes data);
    Task<Result<std::vector<std::uint64_t>>> read_table(Bitmap const& b);
    Task<Result<void>> read_bits(Bitmap& b);
    Task<Result<void>> write_bits(Bitmap& b, std::vector<Extent>& replaced);
    Task<Result<void>> mark_in_use();
    Task<Result<void>> list_extents(Bitmap const& b, std::vector<Extent>& out);
    std::vector<std::uint8_t> serialize(bool closing) const;
    static void set_bits(Bitmap& b, std::uint64_t first, std::uint64_t last);

    Store& store_;
    Geometry g_;
    std::uint64_t disk_size_ = 0;
    std::vector<Bitmap> all_;
    std::vector<Extent> removed_; // clusters of removed bitmaps
    bool recording_ = false;
    bool directory_changed_ = false;
    AsyncMutex mutex_;
};

} // namespace vmm::block::qcow2
