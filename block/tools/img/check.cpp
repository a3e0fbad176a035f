// vmm-img check
#include "block/core/value.h"
#include "block/tools/img/command.h"

#include <cerrno>
#include <cstdio>

namespace vmm::block {

namespace {

constexpr int status_failed = 1, status_corrupt = 2, status_leaks = 3, status_unsupported = 63;

struct CheckOutcome {
    CheckReport report;
    CheckReport fixed; // what the repairing pass mended
    bool repaired = false;
    std::string format;
};

Task<Result<CheckOutcome>> check_twice(Tool& tool, ImageRequest request, RepairMode repair, bool quiet, bool json) {
    CO_TRY_ASSIGN(std::unique_ptr<Image> image, co_await open_for_tool(tool, request));
    CheckOutcome outcome;
    outcome.format = std::string(image->format_name());
    Checkable* checkable = image->capabilities().checkable;
    if (!checkable) {
        CO_TRY(co_await close_image(std::move(image)));
        co_return Error("This image format does not support checks", ENOTSUP);
    }
    std::function<void(std::string_view)> print = [quiet](std::string_view line) {
        if (!quiet) std::fprintf(stderr, "%.*s\n", int(line.size()), line.data());
    };
    Result<CheckReport> report = co_await checkable->check(repair, print);
    if (!report.ok()) co_return report.error().with_prefix("Check failed");
    outcome.report = *report;
    if (repair != RepairMode::none && (report->corruptions_fixed || report->leaks_fixed)) {
        outcome.fixed = *report;
        outcome.repaired = true;
        if (!quiet && !json) {
            std::printf("The following inconsistencies were found and repaired:\n\n    %llu leaked clusters\n"
                        "    %llu corruptions\n\nDouble checking the fixed image now...\n",
                        static_cast<unsigned long long>(report->leaks_fixed),
                        static_cast<unsigned long long>(report->corruptions_fixed));
            std::fflush(stdout);
        }
        CO_TRY_ASSIGN(outcome.report, co_await checkable->check(RepairMode::none, print));
    }
    CO_TRY(co_await close_image(std::move(image)));
    co_return std::move(outcome);
}

std::string check_json(CheckOutcome const& outcome, std::string const& filename) {
    CheckReport const& r = outcome.report;
    Value v;
    auto if_any = [&](char const* key, std::uint64_t n) {
        if (n) v.set(key, n);
    };
    if_any("image-end-offset", r.image_end_offset);
    if_any("compressed-clusters", r.compressed_clusters);
    if_any("total-clusters", r.total_clusters);
    if_any("corruptions", r.corruptions);
    if_any("corruptions-fixed", outcome.fixed.corruptions_fixed);
    v.set("check-errors", r.check_errors);
    if_any("leaks-fixed", outcome.fixed.leaks_fixed);
    if_any("leaks", r.leaks);
    if_any("allocated-clusters", r.allocated_clusters);
    v.set("filename", filename).set("format", outcome.format);
    if_any("fragmented-clusters", r.fragmented_clusters);
    return v.json();
}

void print_report(CheckReport const& r) {
    auto n = [](std::uint64_t value) { return static_cast<unsigned long long>(value); };
    if (!r.corruptions && !r.leaks && !r.check_errors) {
        std::printf("No errors were found on the image.\n");
    } else {
        if (r.corruptions)
            std::printf("\n%llu errors were found on the image.\nData may be corrupted, or further writes to the image "
                        "may corrupt it.\n",
                        n(r.corruptions));
        if (r.leaks)
            std::printf("\n%llu leaked clusters were found on the image.\nThis means waste of disk space, but no harm "
                        "to data.\n",
                        n(r.leaks));
        if (r.check_errors) std::printf("\n%llu internal errors have occurred during the check.\n", n(r.check_errors));
    }
    if (r.total_clusters && r.allocated_clusters)
        std::printf("%llu/%llu = %.2f%% allocated, %.2f%% fragmented, %.2f%% compressed clusters\n",
                    n(r.allocated_clusters), n(r.total_clusters),
                    100.0 * double(r.allocated_clusters) / double(r.total_clusters),
                    100.0 * double(r.fragmented_clusters) / double(r.allocated_clusters),
                    100.0 * double(r.compressed_clusters) / double(r.allocated_clusters));
    if (r.image_end_offset) std::printf("Image end offset: %llu\n", n(r.image_end_offset));
}

} // namespace

int img_check(Tool& tool, std::span<std::string const> words) {
    constexpr OptionRow rows[] = {
        {"format", 'f', true}, {"repair", 'r', true}, {"output", 0, true}, {"", 'T', true}, {"", 'q'},
        {"force-share", 'U'},  {"image-opts", 0}};
    ParsedCommand parsed = parse_command(tool, words, rows);
    if (parsed.stop) return parsed.status;
    Arguments const& args = parsed.args;
    RepairMode repair = RepairMode::none;
    if (std::string const* mode = args.value('r')) {
        if (*mode != "leaks" && *mode != "all")
            return tool.usage_error(fmt::format("Unknown option value for -r (expecting 'leaks' or 'all'): {}", *mode));
        repair = *mode == "all" ? RepairMode::all : RepairMode::leaks;
    }
    if (args.operands().size() != 1) return tool.usage_error("Expecting one image file name");
    Result<bool> json = wants_json(args);
    if (!json.ok()) return tool.fail(json.error());
    Result<CacheMode> cache = parse_cache_option(args.value('T'), CacheMode::writeback, true);
    if (!cache.ok()) return tool.fail(cache.error());
    ImageRequest request{.name = args.operands()[0], .format = args.value_or('f', "")};
    request.image_opts = args.has("image-opts");
    request.force_share = args.has('U');
    request.cache = *cache;
    request.writable = repair != RepairMode::none;
    request.for_check = true;
    bool quiet = args.has('q');
    Result<CheckOutcome> outcome = tool.run(check_twice(tool, request, repair, quiet, *json));
    if (!outcome.ok()) {
        tool.fail(outcome.error());
        return outcome.error().errno_value() == ENOTSUP ? status_unsupported : status_failed;
    }
    if (!quiet && *json) std::printf("%s\n", check_json(*outcome, request.name).c_str());
    if (!quiet && !*json) print_report(outcome->report);
    if (outcome->report.check_errors) return status_failed;
    if (outcome->report.corruptions) return status_corrupt;
    return outcome->report.leaks ? status_leaks : 0;
}

} // namespace vmm::block
