// An open VHDX image: its BAT in memory, written back by flush().
#pragma once
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/vhdx/header.h"

#include <set>

namespace vmm::block::vhdx {

class VhdxImage final : public MappedImage, public Checkable {
public:
    struct Parts {
        Header header;                // the active one
        std::size_t header_index = 0; // where it lies: 0 or 1
        Regions regions;
        Disk disk;
        std::vector<le64> bat;
    };
    VhdxImage(FormatOpenArgs args, Parts parts);
    Capabilities capabilities() override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags) override;
    Task<Result<CheckReport>> check(RepairMode repair, std::function<void(std::string_view)> message) override;

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override;
    Task<Result<NewPlace>> allocate(Mapping was) override;
    void publish(Mapping const& was, NewPlace place) override;
    Task<Result<void>> write_back() override;
    bool clean() const override { return dirty_.empty(); }

private:
    // After each chunk of payload blocks comes the entry of its sector bitmap.
    std::uint64_t index_of(std::uint64_t block) const { return block + block / parts_.disk.chunk_ratio(); }
    // New write ids before the first change (2.2.2: FileWriteGuid, DataWriteGuid).
    Task<Result<void>> before_first_write();

    Parts parts_;
    std::uint64_t end_;             // of everything in the file: where the next block goes
    std::set<std::uint64_t> dirty_; // sectors of the BAT
    bool changed_ = false;
    AsyncMutex first_write_;
};

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args);
// Puts `header` into slot `index` with its checksum.
Task<Result<void>> write_header(BlockDevice& file, Header header, std::size_t index);
Guid random_guid();

} // namespace vmm::block::vhdx
