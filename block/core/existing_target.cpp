#include "block/core/existing_target.h"

#include "block/core/capabilities.h"

#include <algorithm>

namespace vmm::block {

namespace {
constexpr OptionSpec options_table[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"preallocation", OptionType::string, "Preallocation mode (allowed values: off)"},
};
} // namespace

std::span<OptionSpec const> existing_target_options() { return options_table; }

Task<Result<void>> claim_existing_target(BlockContext& context, std::string protocol, std::string filename,
                                         std::uint64_t size, OptionValues options) {
    std::string mode = options.text_or("preallocation", "off");
    if (mode != "off") co_return error("Unsupported preallocation mode '{}'", mode);
    OpenOptions how;
    how.filename = std::move(filename);
    how.format = protocol;
    Result<std::unique_ptr<BlockDevice>> device = co_await open_protocol(context, std::move(how));
    if (!device.ok())
        co_return device.error().with_prefix(fmt::format(
            "Protocol driver '{}' does not support image creation, and opening the image failed", protocol));
    BlockDevice& target = **device;
    if (target.size_bytes() < size) {
        Resizable* resizable = target.capabilities().resizable;
        if (!resizable) co_return error("Image format driver does not support resize");
        CO_TRY(co_await resizable->resize({.new_size_bytes = size, .exact = false}));
    }
    constexpr std::uint64_t sector_bytes = 512;
    std::uint64_t const wiped = std::min(target.size_bytes(), sector_bytes);
    if (wiped > 0) {
        CO_TRY(co_await write_zeroes(target, 0, wiped, {}));
    }
    Result<void> flushed = co_await target.flush();
    co_return flushed;
}

} // namespace vmm::block
