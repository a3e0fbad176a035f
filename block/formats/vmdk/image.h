// An open VMDK: its descriptor and its extents.
#pragma once
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/vmdk/descriptor.h"
#include "block/formats/vmdk/extent.h"

namespace vmm::block::vmdk {

class VmdkImage final : public MappedImage, public Checkable, public CompressedWrites, public Emptyable {
public:
    struct Parts {
        Descriptor descriptor;
        std::uint64_t descriptor_offset = 0;          // of its text, in the file that was named
        std::vector<std::unique_ptr<Extent>> extents; // in disk order, without gaps
        std::uint64_t size = 0, grain_bytes = 0;      // grain_bytes 0: not the same everywhere
    };
    VmdkImage(FormatOpenArgs args, Parts parts);
    BackingReference backing_reference() const override;
    Capabilities capabilities() override;
    bool read_only() const override { return read_only_; }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<FormatInfo>> format_info() override;
    Task<Result<CheckReport>> check(RepairMode repair, std::function<void(std::string_view)> message) override;
    std::uint32_t cluster_size_bytes() const override { return std::uint32_t(unit_); }
    Task<Result<void>> write_compressed(std::uint64_t offset, ConstIoSpans from) override;
    Task<Result<void>> finish_compressed() override;
    // After a commit: takes over the content id that the parent has now. The grains stay: they are what it holds too,
    // and qemu-img leaves them as well.
    Task<Result<void>> make_empty() override;

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override;
    Task<Result<void>> load(std::uint64_t offset) override;
    Task<Result<NewPlace>> allocate(Mapping was) override;
    void publish(Mapping const& was, NewPlace place) override;
    bool mark_zero(Mapping const& was) override;
    Task<Result<void>> read_compressed(Mapping was, Bytes unit) override;
    Task<Result<void>> write_back() override;
    bool clean() const override;

private:
    Extent& extent_at(std::uint64_t offset) const;
    Result<void> check_parent();
    // A new content id before the first change, so that children of this image can tell.
    Task<Result<void>> before_first_write();
    Task<Result<void>> store_compressed(std::uint64_t grain, std::vector<std::uint8_t> content);
    Task<Result<void>> write_stream(std::uint64_t offset, ConstIoSpans from);

    Parts parts_;
    bool read_only_ = false, stream_ = false, parent_checked_ = false, changed_ = false;
    AsyncMutex first_write_;
};

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args);

} // namespace vmm::block::vmdk
