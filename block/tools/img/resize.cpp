// vmm-img resize
#include "block/tools/img/command.h"
#include "vmm/base/checked.h"

#include <cerrno>
#include <cstdio>
#include <limits>

namespace vmm::block {

namespace {

constexpr std::uint64_t sector_bytes = 512;

struct ResizeCommand {
    ImageRequest image;
    char sign = 0; // '+', '-', or 0: absolute
    std::uint64_t amount = 0;
    Preallocation preallocation = Preallocation::off;
    bool shrink = false;
};

constexpr char shrink_hint[] = "Use the --shrink option to perform a shrink operation.";
constexpr char shrink_warning[] =
    "Shrinking an image will delete all data beyond the shrunken image's end. Before performing such an operation, "
    "make sure there is no important data there.";

Task<Result<void>> resize(Tool& tool, Image& image, ResizeCommand command) {
    std::uint64_t current = image.size_bytes();
    constexpr auto largest = std::uint64_t(std::numeric_limits<std::int64_t>::max());
    std::uint64_t wanted = command.amount;
    if (command.sign == '+') wanted = command.amount > largest - current ? 0 : current + command.amount;
    if (command.sign == '-') wanted = command.amount >= current ? 0 : current - command.amount;
    if (wanted == 0 || wanted > largest) co_return error("New image size must be positive");
    if (wanted <= current && command.preallocation != Preallocation::off)
        co_return error("Preallocation can only be used for growing images");
    if (wanted < current && !command.shrink) {
        tool.report(shrink_hint);
        tool.warn(shrink_warning);
        co_return Error("", ECANCELED);
    }
    Resizable* resizable = image.capabilities().resizable;
    if (!resizable) co_return error("Image format driver does not support resize");
    ResizeRequest request{
        .new_size_bytes = wanted, .preallocation = command.preallocation, .shrink_ok = command.shrink};
    Result<void> result = co_await resizable->resize(request);
    if (result.ok() && image.size_bytes() != align_up<std::uint64_t>(wanted, sector_bytes))
        tool.warn(fmt::format("Image should have been resized to {} bytes, but was resized to {} bytes", wanted,
                              image.size_bytes()));
    co_return result;
}

Task<Result<void>> open_and_resize(Tool& tool, ResizeCommand command) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, command.image));
    Result<void> result = co_await resize(tool, *image, command);
    Result<void> closed = co_await close_after(std::move(image), result);
    co_return closed;
}

} // namespace

int img_resize(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {
        {"", 'f', true}, {"", 'q'}, {"image-opts", 0}, {"preallocation", 0, true}, {"shrink", 0}};
    if (words.empty()) return tool.usage_error("Not enough arguments");
    // The last word is the size; "-1G" is not an option.
    bool asks_help = words.back() == "-h" || words.back() == "--help";
    std::string size_text = asks_help ? "" : words.back();
    ParsedCommand parsed = parse_command(tool, asks_help ? words : words.first(words.size() - 1), rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    if (words.size() < 2) return tool.usage_error("Not enough arguments");
    if (args.operands().size() != 1) return tool.usage_error("Expecting image file name and size");
    ResizeCommand command;
    if (std::string const* mode = args.value("preallocation")) {
        Result<Preallocation> parsed_mode = parse_preallocation(*mode);
        if (!parsed_mode.ok()) return tool.fail(fmt::format("Invalid preallocation mode '{}'", *mode));
        command.preallocation = *parsed_mode;
    }
    if (!size_text.empty() && (size_text[0] == '+' || size_text[0] == '-')) {
        command.sign = size_text[0];
        size_text.erase(0, 1);
    }
    Result<std::uint64_t> amount = parse_size(size_text, "size");
    if (!amount.ok()) return tool.fail(size_error_text(amount.error()));
    command.amount = *amount;
    command.shrink = args.has("shrink");
    command.image.name = args.operands()[0];
    command.image.format = args.value_or('f', "");
    command.image.image_opts = args.has("image-opts");
    command.image.writable = true;
    Result<void> result = tool.run(open_and_resize(tool, command));
    if (!result.ok()) {
        if (!result.error().message().empty()) tool.fail(result.error());
        return 1;
    }
    if (!args.has('q')) std::printf("Image resized.\n");
    return 0;
}

} // namespace vmm::block
