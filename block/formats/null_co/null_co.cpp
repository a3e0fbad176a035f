#include "block/formats/null_co/null_co.h"

#include "block/core/capabilities.h"
#include "vmm/base/checked.h"

namespace vmm::block {

namespace {

class NullDevice final : public BlockDevice, public SparseCapable, public AllocationMap {
public:
    NullDevice(std::uint64_t size, bool read_zeroes, bool read_only)
        : size_(size), read_zeroes_(read_zeroes), read_only_(read_only) {}

    std::uint64_t size_bytes() const override { return size_; }
    bool read_only() const override { return read_only_; }
    Limits limits() const override { return {}; }
    Capabilities capabilities() override { return Capabilities{.sparse = this, .allocation = this}; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        CO_TRY(check_range(offset, to.size_bytes(), size_));
        if (read_zeroes_) zero_spans(to, 0, to.size_bytes());
        co_return Result<void>{};
    }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability) override {
        co_return check_range(offset, from.size_bytes(), size_);
    }
    Task<Result<void>> flush() override { co_return Result<void>{}; }
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags) override {
        co_return check_range(offset, length, size_);
    }
    Task<Result<void>> discard(std::uint64_t offset, std::uint64_t length) override {
        co_return check_range(offset, length, size_);
    }
    Task<Result<BlockStatus>> status(std::uint64_t, std::uint64_t length) override {
        BlockStatus status;
        status.length = length;
        status.allocated = true;
        status.zero = read_zeroes_;
        co_return status;
    }

private:
    std::uint64_t size_;
    bool read_zeroes_, read_only_;
};

constexpr OptionSpec open_options[] = {
    {"size", OptionType::size, "how long the device is"},
    {"read-zeroes", OptionType::boolean, "whether reads give zeroes"},
    {"latency-ns", OptionType::number, "accepted: requests take no time"},
};

Task<Result<std::unique_ptr<BlockDevice>>> open(BlockContext&, OpenOptions options) {
    CO_TRY_ASSIGN(std::uint64_t size, options.tree.size("size", GiB));
    CO_TRY_ASSIGN(bool zeroes, options.tree.boolean("read-zeroes", false));
    co_return std::make_unique<NullDevice>(size, zeroes, options.read_only);
}

} // namespace

Protocol null_co_protocol() {
    return {.name = "null-co",
            .matches = [](std::string_view name) { return name.starts_with("null-co://"); },
            .open = open,
            .open_options = open_options};
}

} // namespace vmm::block
