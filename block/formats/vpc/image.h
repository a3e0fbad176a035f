// An open VHD: the block table of a dynamic disk in memory, written back by flush().
#pragma once
#include "block/formats/mapped/mapped_image.h"
#include "block/formats/vpc/header.h"

#include <set>

namespace vmm::block::vpc {

class VpcImage final : public MappedImage {
public:
    // `table` empty: a fixed disk.
    VpcImage(FormatOpenArgs args, Footer footer, DynamicHeader header, std::vector<be32> table);

protected:
    Result<std::optional<Mapping>> find(std::uint64_t offset) override;
    Task<Result<NewPlace>> allocate(Mapping was) override;
    void publish(Mapping const& was, NewPlace place) override;
    bool mark_zero(Mapping const&) override { return true; } // absent already reads as zero
    Task<Result<void>> write_back() override;
    bool clean() const override { return dirty_.empty(); }

private:
    bool fixed() const { return footer_.type == type_fixed; }
    Footer footer_;
    DynamicHeader header_;
    std::vector<be32> table_;        // sector of each block's bitmap, the data behind it
    std::uint64_t bitmap_bytes_ = 0; // in front of each block
    std::uint64_t end_ = 0;          // of the last block: where the next one goes
    std::set<std::uint64_t> dirty_;  // sectors of the table
    AsyncMutex appending_;           // the footer moves with every new block
};

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args);

} // namespace vmm::block::vpc
