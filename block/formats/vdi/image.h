// An open VDI image: its block map in memory, written back by flush().
#pragma once
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/vdi/header.h"

#include <set>

namespace vmm::block::vdi {

class VdiImage final : public MappedImage, public Resizable, public Checkable {
public:
    VdiImage(FormatOpenArgs args, Header header, std::vector<le32> map);
    Capabilities capabilities() override;
    Task<Result<void>> resize(ResizeRequest request) override;
    Task<Result<CheckReport>> check(RepairMode repair, std::function<void(std::string_view)> message) override;

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override;
    Task<Result<NewPlace>> allocate(Mapping was) override;
    void publish(Mapping const& was, NewPlace place) override;
    bool mark_zero(Mapping const&) override { return true; } // absent already reads as zero
    Task<Result<void>> write_back() override;
    bool clean() const override { return dirty_.empty() && !header_dirty_; }

private:
    std::uint64_t place_offset(std::uint64_t place) const { return header_.offset_data + place * block_bytes; }
    // Table sectors that hold entries `first` to `last`, to be written by the next write_back().
    void touch(std::uint64_t first, std::uint64_t last);
    Task<Result<void>> write_header();
    // Gives the map room for `blocks` entries by moving the first data blocks to the end of the file.
    Task<Result<void>> make_room(std::uint64_t blocks, Header& grown);
    Task<Result<void>> move_block(std::uint64_t from, std::uint64_t to);

    Header header_;
    std::vector<le32> map_;
    std::set<std::uint64_t> dirty_; // sectors of the map, counted from its start
    bool header_dirty_ = false;
};

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args);

} // namespace vmm::block::vdi
