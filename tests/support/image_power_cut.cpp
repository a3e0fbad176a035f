// Images on a disk that loses what was not flushed.
#include "tests/support/image_model.h"
#include "tests/support/power_cut_file.h"

#include <gtest/gtest.h>

#include <fstream>
#include <optional>

namespace vmm::block {

namespace {

constexpr unsigned cuts = 60;

// What is known at one moment: `bytes` are certain except where `unsettled` (changed since the last flush).
struct Ledger {
    std::vector<std::uint8_t> bytes;
    std::vector<bool> unsettled;
};
struct Cut {
    std::vector<std::uint8_t> disk;
    Ledger ledger;
};

// Writes, zeroes and flushes.
void write_some(BlockBench& bench, Image& image, ImageModel& model, std::vector<bool>& unsettled, std::uint64_t most) {
    for (unsigned left = 60; left; --left) {
        auto where = model.pick(most);
        if (model.one_in(6)) {
            ASSERT_TRUE(bench.run(image.flush()).ok());
            std::fill(unsettled.begin(), unsettled.end(), false);
            continue;
        }
        std::fill_n(unsettled.begin() + std::ptrdiff_t(where.offset), where.length, true);
        auto target = model.bytes.begin() + std::ptrdiff_t(where.offset);
        if (model.one_in(5)) {
            ZeroFlags flags;
            flags.may_unmap = model.one_in(2);
            ASSERT_TRUE(bench.run(write_zeroes(image, where.offset, where.length, flags)).ok());
            std::fill_n(target, where.length, std::uint8_t(0));
        } else {
            std::vector<std::uint8_t> data = model.content(where.length);
            ASSERT_TRUE(bench.run(write_bytes(image, where.offset, ConstBytes(data))).ok());
            std::ranges::copy(data, target);
        }
    }
}

void expect_sound(BlockBench& bench, ImageProfile const& profile, Cut const& cut) {
    std::ofstream(bench.path("cut"), std::ios::binary | std::ios::trunc)
        .write(reinterpret_cast<char const*>(cut.disk.data()), std::streamsize(cut.disk.size()));
    auto opened = open_profile_image(bench, profile, "cut");
    ASSERT_TRUE(opened.ok()) << "after a power cut: " << opened.error().message();
    std::unique_ptr<Image> image = std::move(opened).value();
    expect_check_clean(bench, *image, true, "after a power cut");
    Result<std::vector<std::uint8_t>> all = read_whole(bench, *image);
    ASSERT_TRUE(all.ok()) << "after a power cut: " << all.error().message();
    for (std::size_t i = 0; i < all->size(); ++i)
        if (!cut.ledger.unsettled[i] && (*all)[i] != cut.ledger.bytes[i])
            FAIL() << profile.format << " " << profile.create_options << " seed " << profile.seed << ": flushed byte "
                   << i << " is " << int((*all)[i]) << ", not " << int(cut.ledger.bytes[i]);
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
}

} // namespace

void image_survives_power_cuts(ImageProfile profile) {
    BlockBench bench;
    Result<void> created = create_profile_image(bench, profile, "image");
    ASSERT_TRUE(created.ok()) << created.error().message();
    std::ifstream in(bench.path("image"), std::ios::binary);
    std::vector<std::uint8_t> const fresh((std::istreambuf_iterator<char>(in)), {});
    for (unsigned cut = 0; cut < cuts && !testing::Test::HasFailure(); ++cut, ++profile.seed) {
        auto device = std::make_unique<PowerCutFile>(fresh);
        PowerCutFile* disk = device.get();
        FormatOpenArgs args{bench.context, std::move(device), bench.path("image"), {}};
        auto opened = bench.run(bench.formats.find(profile.format)->open(std::move(args)));
        ASSERT_TRUE(opened.ok()) << opened.error().message();
        std::unique_ptr<Image> image = std::move(opened).value();
        ImageModel model(profile.seed);
        ASSERT_TRUE(adopt(bench, *image, model).ok());
        std::vector<bool> unsettled(model.bytes.size());
        // The power goes after some write to the disk, as often as not in the midst of a flush.
        std::mt19937_64 chance(profile.seed + 1000);
        unsigned writes_left = 1 + unsigned(chance() % 120);
        std::optional<Cut> taken;
        disk->on_write([&] {
            if (--writes_left == 0) taken = Cut{disk->after_power_cut(chance), {model.bytes, unsettled}};
        });
        write_some(bench, *image, model, unsettled, profile.max_request);
        disk->on_write(nullptr);
        if (!taken) taken = Cut{disk->after_power_cut(chance), {model.bytes, unsettled}};
        expect_sound(bench, profile, *taken);
        ASSERT_TRUE(bench.run(image->close()).ok());
    }
}

} // namespace vmm::block
