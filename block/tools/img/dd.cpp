// vmm-img dd
#include "block/tools/img/copy.h"
#include "block/tools/img/creation.h"

#include <algorithm>
#include <cstdio>

namespace vmm::block {

namespace {

struct DdRequest {
    ImageRequest input;
    std::string output, output_format = "raw";
    std::uint64_t block = 512, skip = 0;
    std::optional<std::uint64_t> count;
};
constexpr std::uint64_t max_block = INT32_MAX;

// "bs=1M" and the like into `request`.
Result<void> take_operand(Tool& tool, std::string const& operand, DdRequest& request) {
    std::size_t equals = operand.find('=');
    std::string name = operand.substr(0, equals);
    if (equals == std::string::npos) return error("unrecognized operand {}", operand);
    std::string value = operand.substr(equals + 1);
    if (name == "if") {
        request.input.name = value;
    } else if (name == "of") {
        request.output = value;
    } else if (name == "bs") {
        request.block = TRY(parse_byte_count(tool.name(), "bs", value));
        if (request.block == 0 || request.block > max_block)
            return error("Invalid bs specified. Must be between 1 and {}.", max_block);
    } else if (name == "count") {
        request.count = TRY(parse_byte_count(tool.name(), "count", value));
    } else if (name == "skip") {
        request.skip = TRY(parse_byte_count(tool.name(), "skip", value));
    } else {
        return error("unrecognized operand {}", name);
    }
    return {};
}

std::uint64_t saturating_product(std::uint64_t a, std::uint64_t b) {
    std::uint64_t r = 0;
    return __builtin_mul_overflow(a, b, &r) ? UINT64_MAX : r;
}

Task<Result<void>> copy_blocks(Tool& tool, Image& input, DdRequest const& request, Progress& progress,
                               Interrupts& interrupts) {
    std::uint64_t size = input.size_bytes(), skip = saturating_product(request.skip, request.block);
    bool beyond = skip > size;
    skip = std::min(skip, size);
    std::uint64_t length = size - skip;
    if (request.count) length = std::min(length, saturating_product(*request.count, request.block));
    if (!tool.context().formats.find(request.output_format) &&
        !tool.context().formats.find_protocol(request.output_format))
        co_return error("Unknown file format");
    CreationPlan plan;
    plan.filename = request.output;
    plan.format = request.output_format;
    plan.size = length;
    Result<std::uint64_t> created = co_await create_image_file(tool, std::move(plan));
    if (!created.ok())
        co_return created.error().with_prefix(
            fmt::format("{}: error while creating output image of type {}", request.output, request.output_format));
    if (beyond) tool.report(fmt::format("{}: cannot skip to specified offset", request.input.name));
    if (length == 0) co_return Result<void>{};
    ImageRequest open{.name = request.output, .format = request.output_format};
    open.writable = true;
    CO_TRY_ASSIGN(std::unique_ptr<Image> output, co_await open_for_tool(tool, open));
    std::vector<std::string> const files = co_await files_of(*output, request.output);
    CopyOptions options;
    options.source_offset = skip;
    options.length = std::min(length, output->size_bytes());
    options.target_is_zero = new_image_is_zero(tool, request.output, request.output_format);
    CopyJob job(tool, {&input}, *output, options, progress, interrupts);
    Result<void> result = co_await job.run();
    Result<void> closed = co_await close_after(std::move(output), result);
    if (!closed.ok()) remove_unfinished(files);
    co_return closed;
}

Task<Result<void>> dd(Tool& tool, DdRequest request, Progress& progress, Interrupts& interrupts) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> input, co_await open_for_tool(tool, request.input));
    Result<void> result = co_await copy_blocks(tool, *input, request, progress, interrupts);
    Result<void> closed = co_await close_after(std::move(input), result);
    co_return closed;
}

} // namespace

int img_dd(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {{"", 'f', true}, {"", 'O', true}, {"force-share", 'U'}, {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    DdRequest request;
    for (std::string const& operand : args.operands())
        if (Result<void> taken = take_operand(tool, operand, request); !taken.ok()) return tool.fail(taken.error());
    if (request.input.name.empty() || request.output.empty())
        return tool.fail("Must specify both input and output files");
    request.input.format = args.value_or('f', "");
    request.input.image_opts = args.has("image-opts");
    request.input.force_share = args.has('U');
    request.output_format = args.value_or('O', "raw");
    Progress progress({});
    Interrupts interrupts(tool.loop(), [&progress] { progress.print_now(); });
    Result<void> result = tool.run(dd(tool, std::move(request), progress, interrupts));
    if (!result.ok()) tool.fail(result.error());
    interrupts.die_if_pending();
    return result.ok() ? 0 : 1;
}

} // namespace vmm::block
