// What the qcow2 tests share: making and opening images, a flat model to compare with, Debian's qemu tools.
#pragma once
#include "block/core/capabilities.h"
#include "tests/support/block_bench.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <random>
#include <string>
#include <vector>

namespace vmm::block {

struct Qcow2Bench : BlockBench {
    // `options`: "cluster_size=512,refcount_bits=1"
    void create(std::string const& name, std::uint64_t size, std::string const& options = "") {
        CreateRequest request;
        request.filename = path(name);
        request.size_bytes = size;
        request.options = OptionValues::parse(options).value();
        Format const* format = formats.find("qcow2");
        request.options.add_defaults(format->create_options);
        Result<void> made = run(format->create(context, request));
        ASSERT_TRUE(made.ok()) << made.error().message();
    }
    OpenOptions options_for(std::string const& name, bool read_only = false) const {
        OpenOptions options;
        options.filename = path(name);
        options.format = "qcow2";
        options.read_only = read_only;
        options.cache = CacheMode::unsafe;
        options.discard = DiscardMode::unmap;
        return options;
    }
    std::unique_ptr<Image> open(std::string const& name, bool read_only = false) {
        return open(options_for(name, read_only));
    }
    std::unique_ptr<Image> open(OpenOptions options) {
        Result<std::unique_ptr<Image>> image = run(open_image(context, options));
        EXPECT_TRUE(image.ok()) << image.error().message();
        return image.ok() ? std::move(image).value() : nullptr;
    }
    void close(std::unique_ptr<Image> image) {
        Result<void> closed = run(close_image(std::move(image)));
        EXPECT_TRUE(closed.ok()) << closed.error().message();
    }
    std::vector<std::uint8_t> read(BlockDevice& device, std::uint64_t offset, std::size_t length) {
        std::vector<std::uint8_t> data(length, 0xcc);
        Bytes all(data);
        Result<void> got = run(read_bytes(device, offset, all));
        EXPECT_TRUE(got.ok()) << got.error().message();
        return data;
    }
    void write(BlockDevice& device, std::uint64_t offset, std::vector<std::uint8_t> const& data) {
        ConstBytes all(data);
        Result<void> done = run(write_bytes(device, offset, all));
        EXPECT_TRUE(done.ok()) << done.error().message();
    }
    // The exit code of `qemu-img ARGUMENTS` in the bench's directory; its output in last_output.
    int qemu_img(std::string const& arguments) { return shell("qemu-img " + arguments); }
    int shell(std::string const& command) {
        std::string all = "cd '" + directory + "' && " + command + " > output.txt 2>&1";
        int status = std::system(all.c_str());
        std::string text;
        if (FILE* f = fopen(path("output.txt").c_str(), "r")) {
            char buffer[4096];
            for (std::size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;) text.append(buffer, n);
            fclose(f);
        }
        last_output = text;
        return WEXITSTATUS(status);
    }
    static bool have_qemu_img() { return std::system("qemu-img --version > /dev/null 2>&1") == 0; }
    // qemu-img finds no fault, not even a leak.
    void expect_clean(std::string const& name) {
        if (!have_qemu_img()) return;
        EXPECT_EQ(qemu_img("check -f qcow2 " + name), 0) << last_output;
    }
    std::string last_output;
};

// Random requests against an image and a flat array that holds what it must read as.
class ModelRun {
public:
    ModelRun(Qcow2Bench& bench, std::uint64_t seed, std::vector<std::uint8_t> content)
        : bench_(bench), random_(seed), model_(std::move(content)) {}
    std::uint64_t pick(std::uint64_t below) {
        return std::uniform_int_distribution<std::uint64_t>(0, below - 1)(random_);
    }

    void step(Image& image, std::uint64_t max_length) {
        std::uint64_t offset = pick(model_.size());
        std::uint64_t length = std::min<std::uint64_t>(1 + pick(max_length), model_.size() - offset);
        if (pick(3) == 0)
            offset -= offset % 4096,
                length = std::min<std::uint64_t>((length + 4095) / 4096 * 4096, model_.size() - offset);
        switch (pick(10)) {
        case 0:
        case 1:
        case 2:
        case 3: write(image, offset, length); break;
        case 4: zero(image, offset, length, false); break;
        case 5: zero(image, offset, length, true); break;
        case 6: discard(image, offset, length); break;
        case 7:
            if (image.capabilities().compressed) compressed(image, offset);
            break;
        case 8: EXPECT_TRUE(bench_.run(image.flush()).ok()); break;
        default: compare(image, offset, length);
        }
    }
    void write(Image& image, std::uint64_t offset, std::uint64_t length) {
        std::vector<std::uint8_t> data(length, std::uint8_t(1 + pick(255)));
        if (length > 8) data[length / 2] = std::uint8_t(pick(256));
        bench_.write(image, offset, data);
        std::ranges::copy(data, model_.begin() + std::ptrdiff_t(offset));
    }
    void zero(Image& image, std::uint64_t offset, std::uint64_t length, bool unmap) {
        ZeroFlags flags{.may_unmap = unmap};
        Result<void> done = bench_.run(write_zeroes(image, offset, length, flags));
        EXPECT_TRUE(done.ok()) << done.error().message();
        std::fill_n(model_.begin() + std::ptrdiff_t(offset), length, 0);
    }
    // The content of what was discarded is open: read back and believed, where it may have changed.
    void discard(Image& image, std::uint64_t offset, std::uint64_t length) {
        Result<void> done = bench_.run(block::discard(image, offset, length));
        EXPECT_TRUE(done.ok()) << done.error().message();
        std::vector<std::uint8_t> now = bench_.read(image, offset, length);
        for (std::size_t i = 0; i < now.size(); ++i) {
            EXPECT_TRUE(now[i] == 0 || now[i] == model_[offset + i]) << "at " << offset + i;
            model_[offset + i] = now[i];
        }
    }
    void compressed(Image& image, std::uint64_t offset) {
        CompressedWrites* writer = image.capabilities().compressed;
        std::uint64_t cluster = writer->cluster_size_bytes();
        offset -= offset % cluster;
        std::uint64_t length = std::min<std::uint64_t>(cluster, model_.size() - offset);
        std::vector<std::uint8_t> data(length, std::uint8_t(1 + pick(255)));
        for (std::size_t i = 0; i < length; i += 1 + pick(64)) data[i] = std::uint8_t(pick(256));
        if (pick(8) == 0)
            for (auto& byte : data) byte = std::uint8_t(random_()); // does not compress
        ConstBytes all(data);
        IoVector part(all);
        Result<void> done = bench_.run(writer->write_compressed(offset, part.const_spans()));
        EXPECT_TRUE(done.ok()) << done.error().message();
        std::ranges::copy(data, model_.begin() + std::ptrdiff_t(offset));
    }
    void compare(Image& image, std::uint64_t offset, std::uint64_t length) {
        std::vector<std::uint8_t> now = bench_.read(image, offset, length);
        for (std::size_t i = 0; i < now.size(); ++i)
            if (now[i] != model_[offset + i]) {
                ADD_FAILURE() << "byte " << offset + i << " is " << int(now[i]) << ", not " << int(model_[offset + i]);
                return;
            }
    }
    void compare_all(Image& image) { compare(image, 0, model_.size()); }
    std::vector<std::uint8_t>& model() { return model_; }

private:
    Qcow2Bench& bench_;
    std::mt19937_64 random_;
    std::vector<std::uint8_t> model_;
};

} // namespace vmm::block
