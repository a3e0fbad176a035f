// Images on a disk that loses what was not flushed.
#include "tests/support/image_model.h"
#include "tests/support/power_cut_file.h"

#include <gtest/gtest.h>

#include <fstream>

namespace vmm::block {

namespace {

constexpr unsigned cuts = 40;

// Writes, zeroes and flushes; `unsettled` is what changed since the last flush.
void write_some(BlockBench& bench, Image& image, ImageModel& model, std::vector<bool>& unsettled, std::uint64_t most) {
    for (std::uint64_t left = 1 + model.below(60); left; --left) {
        auto where = model.pick(most);
        if (model.one_in(6)) {
            ASSERT_TRUE(bench.run(image.flush()).ok());
            std::fill(unsettled.begin(), unsettled.end(), false);
            continue;
        }
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
        std::fill_n(unsettled.begin() + std::ptrdiff_t(where.offset), where.length, true);
    }
}

void expect_sound(BlockBench& bench, ImageProfile const& profile, ImageModel const& model,
                  std::vector<bool> const& unsettled) {
    auto opened = open_profile_image(bench, profile, "cut");
    ASSERT_TRUE(opened.ok()) << "after a power cut: " << opened.error().message();
    std::unique_ptr<Image> image = std::move(opened).value();
    expect_check_clean(bench, *image, true, "after a power cut");
    Result<std::vector<std::uint8_t>> all = read_whole(bench, *image);
    ASSERT_TRUE(all.ok()) << "after a power cut: " << all.error().message();
    for (std::size_t i = 0; i < all->size(); ++i)
        if (!unsettled[i] && (*all)[i] != model.bytes[i])
            FAIL() << profile.format << " " << profile.create_options << " seed " << profile.seed << ": flushed byte "
                   << i << " is " << int((*all)[i]) << ", not " << int(model.bytes[i]);
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
        write_some(bench, *image, model, unsettled, profile.max_request);
        std::vector<std::uint8_t> left = disk->after_power_cut(model.random);
        std::ofstream(bench.path("cut"), std::ios::binary)
            .write(reinterpret_cast<char const*>(left.data()), std::streamsize(left.size()));
        expect_sound(bench, profile, model, unsettled);
        ASSERT_TRUE(bench.run(image->close()).ok());
    }
}

} // namespace vmm::block
