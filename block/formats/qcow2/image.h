// Qcow2Image: an open qcow2 image, put together from its parts; what the block layer sees.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/factory.h"
#include "block/core/image.h"
#include "block/formats/qcow2/bitmaps.h"
#include "block/formats/qcow2/check.h"
#include "block/formats/qcow2/clusters.h"
#include "block/formats/qcow2/crypto.h"
#include "block/formats/qcow2/snapshots.h"
#include "block/formats/qcow2/store.h"

#include <memory>
#include <optional>

namespace vmm::block::qcow2 {

class Qcow2Image final : public Image,
                         public SparseCapable,
                         public AllocationMap,
                         public Resizable,
                         public Snapshots,
                         public Checkable,
                         public CompressedWrites,
                         public InfoSource,
                         public Amendable,
                         public BackingLink,
                         public Emptyable {
public:
    // Parts that open() has made ready.
    struct Parts {
        std::unique_ptr<Store> store;
        std::unique_ptr<BlockDevice> data_file; // null: guest data lies in the image file
        std::string data_filename;
        Encryption encryption;
        bool no_io = false; // opened for `info`: no data can be read
    };
    explicit Qcow2Image(Parts parts);

    // Opens `args.file`; the image keeps it.
    static Task<Result<std::unique_ptr<Qcow2Image>>> open(FormatOpenArgs args);

    std::string_view format_name() const override { return "qcow2"; }
    BlockDevice* file() override { return &store_->file(); }
    BackingReference backing_reference() const override;
    Task<Result<void>> close() override;
    Result<std::uint64_t> allocated_size_bytes() override;

    std::uint64_t size_bytes() const override { return size_; }
    bool read_only() const override { return store_->file().read_only() || view_only_; }
    Limits limits() const override;
    Capabilities capabilities() override;
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override;

    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<BlockStatus>> status(std::uint64_t offset, std::uint64_t length) override;
    Task<Result<void>> resize(ResizeRequest request) override;
    std::uint32_t cluster_size_bytes() const override { return std::uint32_t(store_->geometry().cluster()); }
    Task<Result<void>> write_compressed(std::uint64_t offset, ConstIoSpans from) override;
    Task<Result<void>> finish_compressed() override { return flush(); }
    Task<Result<FormatInfo>> format_info() override;
    Task<Result<void>> amend(Request request) override;
    Task<Result<void>> change_backing(std::string filename, std::string format) override;

    Task<Result<void>> make_empty() override;

    std::vector<SnapshotInfo> list() const override;
    Task<Result<void>> create(SnapshotRequest request) override;
    Task<Result<void>> apply(std::string name_or_id) override;
    Task<Result<void>> remove(std::string name_or_id) override;
    Task<Result<void>> load_read_only(std::string name_or_id) override;
    Task<Result<void>> read_vm_state(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write_vm_state(std::uint64_t offset, ConstIoSpans from) override;
    Task<Result<CheckReport>> check(RepairMode repair, std::function<void(std::string_view)> message) override;

    Store& store() { return *store_; }
    Clusters& clusters() { return *clusters_; }

private:
    // Directory of snapshots and bitmaps, repair of an image that was not closed.
    Task<Result<void>> finish_open(OpenOptions const& options);
    // "encrypt.state" and its companions: LUKS key slots.
    Task<Result<void>> amend_keys(Request const& request);
    Result<void> check_write(std::uint64_t offset, std::uint64_t length);
    Task<Result<void>> flush_if(Durability durability);
    Task<Result<void>> grow(std::uint64_t old_size, ResizeRequest const& request);
    Task<Result<void>> shrink(std::uint64_t old_size, std::uint64_t new_size);
    Task<Result<void>> preallocate(std::uint64_t old_size, ResizeRequest const& request);
    Task<Result<void>> drop_vm_state(std::uint64_t disk_size);
    // Whether much of what the tables call data was never written to the image file (preallocation=metadata): then the
    // file is asked where its holes are. Found out once; counting costs a look at every refcount.
    Task<Result<bool>> data_may_be_holes();
    // The image file ends where the last cluster in use ends.
    Task<Result<void>> cut_file();
    void set_size(std::uint64_t bytes);

    std::unique_ptr<Store> store_;
    std::unique_ptr<BlockDevice> data_file_;
    std::string data_filename_;
    Encryption encryption_;
    std::unique_ptr<Clusters> clusters_;
    std::unique_ptr<SnapshotTable> snapshots_;
    std::unique_ptr<BitmapTable> bitmaps_;
    std::uint64_t size_ = 0;
    bool no_io_ = false;
    bool view_only_ = false; // shows a snapshot
    std::optional<bool> data_may_be_holes_;
    bool grown_ = false; // the file may have been written behind its end
};

} // namespace vmm::block::qcow2
