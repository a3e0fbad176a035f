// Images against the outside: Debian's qemu-img, a kill at a bad moment, bytes turned over.
#include "block/core/capabilities.h"
#include "tests/support/image_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

namespace vmm::block {

namespace {

// What a writer that is to be killed has promised: `bytes` are certain except where `dirty`.
struct Ledger {
    ImageModel model;
    std::vector<bool> unsettled; // written (or being written) since the last finished flush
    bool stop = false;
    bool stopped = false;
};

Task<Result<void>> write_until_stopped(BlockDevice& device, Ledger& ledger, std::uint64_t max_request) {
    while (!ledger.stop) {
        auto where = ledger.model.pick(max_request);
        if (ledger.model.one_in(6)) {
            CO_TRY(co_await device.flush());
            std::fill(ledger.unsettled.begin(), ledger.unsettled.end(), false);
            continue;
        }
        for (std::uint64_t i = 0; i < where.length; ++i) ledger.unsettled[where.offset + i] = true;
        if (ledger.model.one_in(6)) {
            ZeroFlags flags;
            flags.may_unmap = true;
            CO_TRY(co_await write_zeroes(device, where.offset, where.length, flags));
            std::fill_n(ledger.model.bytes.begin() + std::ptrdiff_t(where.offset), where.length, std::uint8_t(0));
            continue;
        }
        std::vector<std::uint8_t> data = ledger.model.content(where.length);
        CO_TRY(co_await write_bytes(device, where.offset, data));
        std::ranges::copy(data, ledger.model.bytes.begin() + std::ptrdiff_t(where.offset));
    }
    co_return Result<void>{};
}

void expect_copy_is_sound(BlockBench& bench, ImageProfile const& profile, std::string const& name,
                          Ledger const& ledger) {
    auto opened = open_profile_image(bench, profile, name);
    ASSERT_TRUE(opened.ok()) << "after a kill: " << opened.error().message();
    std::unique_ptr<Image> image = std::move(opened).value();
    expect_check_clean(bench, *image, true, "after a kill");
    Result<std::vector<std::uint8_t>> all = read_whole(bench, *image);
    ASSERT_TRUE(all.ok()) << "after a kill: " << all.error().message();
    for (std::size_t i = 0; i < all->size(); ++i)
        if (!ledger.unsettled[i] && (*all)[i] != ledger.model.bytes[i])
            FAIL() << profile.format << " " << profile.create_options << " seed " << profile.seed << ": flushed byte "
                   << i << " is " << int((*all)[i]) << ", not " << int(ledger.model.bytes[i]);
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
}

// Every file of the bench's "live" directory copied to "dead": what a killed process leaves in the page cache.
void copy_files(BlockBench& bench) {
    std::filesystem::remove_all(bench.path("dead"));
    std::filesystem::copy(bench.path("live"), bench.path("dead"));
}

std::string format_flags(ImageProfile const& profile, std::string const& filename) {
    return fmt::format("-f {} '{}'", profile.format, filename);
}

void expect_command(std::string const& command) {
    CommandOutcome outcome = run_command(command);
    EXPECT_EQ(outcome.exit_code, 0) << command << "\n" << outcome.output;
}

void save(std::string const& path, std::span<std::uint8_t const> bytes) {
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<char const*>(bytes.data()), std::streamsize(bytes.size()));
}

} // namespace

void image_survives_kills(ImageProfile profile) {
    BlockBench bench;
    std::filesystem::create_directory(bench.path("live"));
    Result<void> created = create_profile_image(bench, profile, "live/image");
    ASSERT_TRUE(created.ok()) << created.error().message();
    for (unsigned round = 0; round < 6 && !testing::Test::HasFailure(); ++round) {
        auto opened = open_profile_image(bench, profile, "live/image");
        ASSERT_TRUE(opened.ok()) << opened.error().message();
        std::unique_ptr<Image> image = std::move(opened).value();
        Ledger ledger{ImageModel(profile.seed + round), {}};
        ASSERT_TRUE(adopt(bench, *image, ledger.model).ok());
        ledger.unsettled.resize(ledger.model.bytes.size());
        Result<void> outcome;
        auto finished = [&](Result<void> result) {
            outcome = std::move(result);
            ledger.stopped = true;
        };
        spawn(write_until_stopped(*image, ledger, profile.max_request), std::function<void(Result<void>)>(finished));
        for (unsigned kill = 0; kill < 4 && !ledger.stopped; ++kill) {
            for (std::uint64_t turns = 1 + ledger.model.below(60); turns && !ledger.stopped; --turns)
                bench.loop->run_once(-1);
            copy_files(bench);
            Ledger promised = ledger; // the writer goes on while the copy is looked at
            expect_copy_is_sound(bench, profile, "dead/image", promised);
        }
        ledger.stop = true;
        while (!ledger.stopped) bench.loop->run_once(-1);
        ASSERT_TRUE(outcome.ok()) << outcome.error().message();
        ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    }
}

void image_crosses_with_qemu(ImageProfile profile) {
    if (!have_qemu_img()) GTEST_SKIP() << "qemu-img is not installed";
    BlockBench bench;
    Result<void> created = create_profile_image(bench, profile, "ours");
    ASSERT_TRUE(created.ok()) << created.error().message();
    std::unique_ptr<Image> image = open_profile_image(bench, profile, "ours").value();
    ImageModel model(profile.seed);
    ASSERT_TRUE(adopt(bench, *image, model).ok());
    for (unsigned i = 0; i < 60; ++i) {
        auto where = model.pick(profile.max_request);
        std::vector<std::uint8_t> data = model.content(where.length);
        ZeroFlags flags;
        if (i % 4 == 3) {
            ASSERT_TRUE(bench.run(write_zeroes(*image, where.offset, where.length, flags)).ok());
            std::ranges::fill(data, std::uint8_t(0));
        } else {
            ASSERT_TRUE(bench.run(write_bytes(*image, where.offset, data)).ok());
        }
        std::ranges::copy(data, model.bytes.begin() + std::ptrdiff_t(where.offset));
    }
    bool checks = image->capabilities().checkable != nullptr;
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    save(bench.path("raw"), model.bytes);
    if (checks) expect_command("qemu-img check " + format_flags(profile, bench.path("ours")));
    expect_command(
        fmt::format("qemu-img compare -f raw -F {} '{}' '{}'", profile.format, bench.path("raw"), bench.path("ours")));
    std::string options = profile.create_options.empty() ? "" : " -o " + profile.create_options;
    expect_command(fmt::format("qemu-img convert -f raw -O {}{} '{}' '{}'", profile.format, options, bench.path("raw"),
                               bench.path("theirs")));
    auto theirs = open_profile_image(bench, profile, "theirs");
    ASSERT_TRUE(theirs.ok()) << theirs.error().message();
    expect_check_clean(bench, **theirs, false, "theirs");
    Result<std::vector<std::uint8_t>> all = read_whole(bench, **theirs);
    ASSERT_TRUE(all.ok()) << all.error().message();
    ASSERT_GE(all->size(), model.bytes.size());
    EXPECT_TRUE(is_zero(ConstBytes(*all).subspan(model.bytes.size())));
    all->resize(model.bytes.size());
    expect_equal(*all, model.bytes, 0, "qemu-img's image");
    ASSERT_TRUE(bench.run(close_image(std::move(theirs).value())).ok());
}

void image_survives_corruption(ImageProfile profile, std::size_t header_bytes, unsigned mutations) {
    BlockBench bench(false);
    Result<void> created = create_profile_image(bench, profile, "image");
    ASSERT_TRUE(created.ok()) << created.error().message();
    {
        std::unique_ptr<Image> image = open_profile_image(bench, profile, "image").value();
        std::vector<std::uint8_t> noise = patchy_noise(profile.seed, image->size_bytes());
        ASSERT_TRUE(bench.run(write_bytes(*image, 0, noise)).ok());
        ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    }
    std::string good = bench.path("image");
    std::ifstream in(good, std::ios::binary);
    std::vector<char> valid((std::istreambuf_iterator<char>(in)), {});
    std::mt19937_64 random(profile.seed);
    for (unsigned i = 0; i < mutations; ++i) {
        std::vector<char> bad = valid;
        std::size_t reach = std::min(header_bytes, bad.size());
        for (unsigned n = 1 + random() % 4; n; --n) {
            constexpr char edges[] = {0, 1, -1, 127, -128};
            std::size_t at = random() % reach;
            char value = random() % 2 ? char(random()) : edges[random() % std::size(edges)];
            std::fill_n(bad.begin() + std::ptrdiff_t(at), std::min<std::size_t>(1 << random() % 4, reach - at), value);
        }
        if (random() % 8 == 0) bad.resize(random() % bad.size());
        save(bench.path("bad"), {reinterpret_cast<std::uint8_t const*>(bad.data()), bad.size()});
        auto opened = open_profile_image(bench, profile, "bad", random() % 2);
        if (!opened.ok()) continue;
        std::unique_ptr<Image> image = std::move(opened).value();
        std::vector<std::uint8_t> piece(65536);
        std::uint64_t size = image->size_bytes(), step = std::max<std::uint64_t>(size / 64, 1);
        for (std::uint64_t at = 0; at < size && size - at >= piece.size(); at += step) {
            (void)bench.run(read_bytes(*image, at, piece)).ok();
            if (!image->read_only()) (void)bench.run(write_bytes(*image, at, piece)).ok();
            if (AllocationMap* map = image->capabilities().allocation) (void)bench.run(map->status(at, 65536)).ok();
        }
        auto ignore = [](std::string_view) {};
        if (Checkable* checkable = image->capabilities().checkable)
            (void)bench.run(checkable->check(RepairMode::none, ignore)).ok();
        (void)bench.run(close_image(std::move(image))).ok();
    }
}

} // namespace vmm::block
