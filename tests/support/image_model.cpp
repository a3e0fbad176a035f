#include "tests/support/image_model.h"

#include "block/core/capabilities.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstdio>

namespace vmm::block {

ImageModel::Stretch ImageModel::pick(std::uint64_t max_length) {
    std::uint64_t size = bytes.size();
    std::uint64_t offset = below(size);
    std::uint64_t length = 1 + below(one_in(3) ? max_length : 3000);
    if (one_in(2)) offset = offset / 512 * 512, length = (length + 511) / 512 * 512;
    if (one_in(8)) offset = offset / 65536 * 65536, length = (length + 65535) / 65536 * 65536;
    return {offset, std::min(length, size - offset)};
}

std::vector<std::uint8_t> ImageModel::content(std::size_t length) {
    if (one_in(8)) return std::vector<std::uint8_t>(length);
    if (one_in(4)) return std::vector<std::uint8_t>(length, std::uint8_t(random()));
    return patchy_noise(random(), length);
}

std::vector<std::uint8_t> patchy_noise(std::uint64_t seed, std::size_t size) {
    std::vector<std::uint8_t> result(size);
    std::mt19937_64 random(seed);
    for (std::size_t at = 0; at < size;) {
        std::size_t n = std::min<std::size_t>(size - at, 1 + random() % (random() % 8 == 0 ? 200000 : 5000));
        unsigned kind = random() % 3; // zeroes, one byte, noise
        if (kind == 1) std::fill_n(result.begin() + std::ptrdiff_t(at), n, std::uint8_t(random()));
        if (kind == 2)
            for (std::size_t i = 0; i < n; ++i) result[at + i] = std::uint8_t(random());
        at += n;
    }
    return result;
}

Result<std::vector<std::uint8_t>> read_whole(BlockBench& bench, BlockDevice& image) {
    std::vector<std::uint8_t> all(image.size_bytes());
    constexpr std::size_t piece = 1 << 20;
    for (std::size_t at = 0; at < all.size(); at += piece)
        TRY(bench.run(read_bytes(image, at, Bytes(all).subspan(at, std::min(piece, all.size() - at)))));
    return all;
}

Result<void> adopt(BlockBench& bench, BlockDevice& image, ImageModel& model) {
    model.bytes = TRY(read_whole(bench, image));
    return {};
}

void expect_equal(std::span<std::uint8_t const> found, std::span<std::uint8_t const> expected, std::uint64_t offset,
                  std::string const& what) {
    ASSERT_EQ(found.size(), expected.size()) << what;
    auto [a, b] = std::mismatch(found.begin(), found.end(), expected.begin());
    if (a != found.end())
        FAIL() << what << ": byte " << offset + std::size_t(a - found.begin()) << " is " << int(*a) << ", not "
               << int(*b) << " (in " << offset << "+" << found.size() << ")";
}

void expect_check_clean(BlockBench& bench, Image& image, bool leaks_ok, std::string const& what) {
    Checkable* checkable = image.capabilities().checkable;
    if (!checkable) return;
    std::string findings;
    auto collect = [&](std::string_view line) { findings += std::string(line) + "\n"; };
    Result<CheckReport> report = bench.run(checkable->check(RepairMode::none, collect));
    ASSERT_TRUE(report.ok()) << what << ": " << report.error().message();
    EXPECT_EQ(report->corruptions, 0u) << what << "\n" << findings;
    EXPECT_EQ(report->check_errors, 0u) << what << "\n" << findings;
    EXPECT_TRUE(leaks_ok || report->leaks == 0) << what << "\n" << findings;
}

CommandOutcome run_command(std::string const& command) {
    CommandOutcome outcome;
    FILE* pipe = popen(("exec 2>&1; " + command).c_str(), "r");
    if (!pipe) return {127, "popen failed"};
    std::array<char, 4096> buffer{};
    while (std::size_t n = fread(buffer.data(), 1, buffer.size(), pipe)) outcome.output.append(buffer.data(), n);
    int status = pclose(pipe);
    outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return outcome;
}

bool have_qemu_img() { return run_command("qemu-img --version").exit_code == 0; }

} // namespace vmm::block
