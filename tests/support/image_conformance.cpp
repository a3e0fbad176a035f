#include "tests/support/image_conformance.h"

#include "block/core/capabilities.h"
#include "block/core/sync.h"
#include "tests/support/image_model.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <map>

namespace vmm::block {

namespace {

constexpr unsigned workers = 8;
constexpr std::uint64_t stripe_bytes = 3000; // odd on purpose: neighbours share sectors and clusters

Result<void> create_one(BlockBench& bench, std::string const& format, std::string const& options,
                        std::string const& path, std::uint64_t size, OptionValues const& extra) {
    Format const* driver = bench.formats.find(format);
    if (!driver || !driver->create) return error("no driver that creates '{}'", format);
    CreateRequest request;
    request.filename = path;
    request.size_bytes = size;
    request.options = TRY(OptionValues::parse(options));
    for (auto const& [name, value] : extra.all()) request.options.set(name, value);
    TRY(request.options.check_against(driver->create_options));
    request.options.add_defaults(driver->create_options);
    return bench.run(driver->create(bench.context, request));
}

// One conformance run over one image.
class ModelRun {
public:
    ModelRun(ImageProfile const& profile) : profile_(profile), model_(profile.seed) {}
    void run();

private:
    bool open();
    void step();
    void read(ImageModel::Stretch where);
    void write(ImageModel::Stretch where);
    void zero(ImageModel::Stretch where);
    void discard_some(ImageModel::Stretch where);
    void resize();
    void snapshot();
    void status(ImageModel::Stretch where);
    void reopen();
    std::string what(std::string const& action) const {
        return fmt::format("{} {} seed {} operation {}: {}", profile_.format, profile_.create_options, profile_.seed,
                           operation_, action);
    }
    void expect_ok(Result<void> const& result, std::string const& action) const {
        EXPECT_TRUE(result.ok()) << what(action) << ": " << (result.ok() ? "" : result.error().message());
    }

    ImageProfile profile_;
    BlockBench bench_;
    ImageModel model_;
    std::unique_ptr<Image> image_;
    std::map<std::string, std::vector<std::uint8_t>> snapshots_; // what each must read as
    unsigned operation_ = 0;
};

bool ModelRun::open() {
    auto opened = open_profile_image(bench_, profile_, "image");
    EXPECT_TRUE(opened.ok()) << what("open") << ": " << (opened.ok() ? "" : opened.error().message());
    if (!opened.ok()) return false;
    image_ = std::move(opened).value();
    return true;
}

void ModelRun::read(ImageModel::Stretch where) {
    std::vector<std::uint8_t> found(where.length, 0xa5);
    expect_ok(bench_.run(read_bytes(*image_, where.offset, found)), "read");
    expect_equal(found, std::span(model_.bytes).subspan(where.offset, where.length), where.offset, what("read"));
}

void ModelRun::write(ImageModel::Stretch where) {
    std::vector<std::uint8_t> data = model_.content(where.length);
    std::size_t half = data.size() / 2;
    IoVector parts(ConstBytes(data).first(half));
    parts.append(ConstBytes(data).subspan(half));
    Durability durability = model_.one_in(20) ? Durability::fua : Durability::cached;
    expect_ok(bench_.run(image_->write(where.offset, parts.const_spans(), durability)),
              fmt::format("write {}+{}", where.offset, where.length));
    std::ranges::copy(data, model_.bytes.begin() + std::ptrdiff_t(where.offset));
}

void ModelRun::zero(ImageModel::Stretch where) {
    ZeroFlags flags;
    flags.may_unmap = model_.one_in(2);
    expect_ok(bench_.run(write_zeroes(*image_, where.offset, where.length, flags)),
              fmt::format("zero {}+{}", where.offset, where.length));
    std::fill_n(model_.bytes.begin() + std::ptrdiff_t(where.offset), where.length, std::uint8_t(0));
}

void ModelRun::discard_some(ImageModel::Stretch where) {
    expect_ok(bench_.run(discard(*image_, where.offset, where.length)), "discard");
    std::vector<std::uint8_t> found(where.length);
    expect_ok(bench_.run(read_bytes(*image_, where.offset, found)), "read of discarded");
    for (std::size_t i = 0; i < found.size(); ++i) {
        std::uint8_t& old = model_.bytes[where.offset + i];
        if (found[i] != 0 && found[i] != old) FAIL() << what("discard") << ": byte " << where.offset + i << " is new";
        old = found[i];
    }
}

void ModelRun::resize() {
    if (!snapshots_.empty() && !profile_.resizes_with_snapshots) return;
    Resizable* resizable = image_->capabilities().resizable;
    ASSERT_NE(resizable, nullptr) << what("resize");
    bool shrink = profile_.shrinks && model_.one_in(2);
    std::uint64_t step = (1 + model_.below(400)) * profile_.granularity * (model_.one_in(4) ? 10 : 1);
    std::uint64_t now = model_.bytes.size();
    if (!shrink && (!profile_.grows || now > 4 * profile_.size_bytes)) return;
    if (shrink && now <= step + profile_.granularity) return;
    ResizeRequest request{.new_size_bytes = shrink ? now - step : now + step, .shrink_ok = shrink};
    expect_ok(bench_.run(resizable->resize(request)), fmt::format("resize to {}", request.new_size_bytes));
    EXPECT_EQ(image_->size_bytes(), request.new_size_bytes) << what("resize");
    model_.bytes.resize(request.new_size_bytes);
    if (request.new_size_bytes > now && !profile_.new_reads_zero) {
        Bytes added = Bytes(model_.bytes).subspan(now);
        expect_ok(bench_.run(read_bytes(*image_, now, added)), "read of what was added");
    }
}

// Makes, applies or removes one of at most four internal snapshots.
void ModelRun::snapshot() {
    Snapshots* inside = image_->capabilities().snapshots;
    if (snapshots_.empty() || (snapshots_.size() < 4 && model_.one_in(3))) {
        SnapshotRequest request;
        request.name = fmt::format("s{}", operation_);
        snapshots_[request.name] = model_.bytes;
        return expect_ok(bench_.run(inside->create(std::move(request))), "snapshot");
    }
    auto one = std::next(snapshots_.begin(), std::ptrdiff_t(model_.below(snapshots_.size())));
    if (model_.one_in(2)) {
        expect_ok(bench_.run(inside->remove(one->first)), "remove snapshot " + one->first);
        snapshots_.erase(one);
        return;
    }
    expect_ok(bench_.run(inside->apply(one->first)), "apply snapshot " + one->first);
    model_.bytes = one->second;
    Result<std::vector<std::uint8_t>> all = read_whole(bench_, *image_);
    ASSERT_TRUE(all.ok()) << what("read of snapshot") << ": " << all.error().message();
    expect_equal(*all, model_.bytes, 0, what("read of snapshot " + one->first));
}

void ModelRun::status(ImageModel::Stretch where) {
    AllocationMap* map = image_->capabilities().allocation;
    if (!map) return;
    Result<BlockStatus> found = bench_.run(map->status(where.offset, where.length));
    ASSERT_TRUE(found.ok()) << what("status");
    ASSERT_TRUE(found->length > 0 && found->length <= where.length) << what("status") << " length " << found->length;
    auto span = std::span(model_.bytes).subspan(where.offset, found->length);
    bool reads_zero = found->zero || (!found->allocated && !image_->backing());
    EXPECT_TRUE(!reads_zero || is_zero(ConstBytes(span))) << what("status") << ": zero, but is not";
}

void ModelRun::reopen() {
    expect_check_clean(bench_, *image_, false, what("check"));
    expect_ok(bench_.run(close_image(std::move(image_))), "close");
    if (!open()) return;
    EXPECT_EQ(image_->size_bytes(), model_.bytes.size()) << what("reopen");
    Result<std::vector<std::uint8_t>> all = read_whole(bench_, *image_);
    ASSERT_TRUE(all.ok()) << what("whole read") << ": " << all.error().message();
    expect_equal(*all, model_.bytes, 0, what("whole read after reopen"));
}

void ModelRun::step() {
    if (image_->capabilities().snapshots && model_.one_in(40)) return snapshot();
    auto where = model_.pick(profile_.max_request);
    switch (model_.below(16)) {
    case 0:
    case 1:
    case 2:
    case 3: return read(where);
    case 4:
    case 5: return zero(where);
    case 6: return discard_some(where);
    case 7: return expect_ok(bench_.run(image_->flush()), "flush");
    case 8: return status(where);
    case 9: return model_.one_in(8) && (profile_.grows || profile_.shrinks) ? resize() : read(where);
    default: return write(where);
    }
}

void ModelRun::run() {
    Result<void> created = create_profile_image(bench_, profile_, "image");
    ASSERT_TRUE(created.ok()) << created.error().message();
    if (!open()) return;
    ASSERT_TRUE(adopt(bench_, *image_, model_).ok());
    EXPECT_TRUE(profile_.size_may_be_rounded || model_.bytes.size() == profile_.size_bytes);
    EXPECT_TRUE(!profile_.new_reads_zero || !profile_.backing_format.empty() || is_zero(ConstBytes(model_.bytes)));
    for (; operation_ < profile_.operations && image_ && !testing::Test::HasFailure(); ++operation_) {
        step();
        if (operation_ % 250 == 249) reopen();
    }
    if (!image_) return;
    expect_ok(bench_.run(close_image(std::move(image_))), "close");
}

struct Worker {
    ImageModel model;
    std::vector<std::uint8_t>* bytes;
    unsigned index;
    std::string problem;
};

// Writes and reads stripes index, index + workers, ...
Task<Result<void>> work(BlockDevice& device, Worker& self, unsigned operations) {
    std::uint64_t stripes = device.size_bytes() / stripe_bytes;
    for (unsigned i = 0; i < operations; ++i) {
        std::uint64_t stripe = self.model.below(stripes / workers) * workers + self.index;
        std::uint64_t offset = stripe * stripe_bytes;
        std::span<std::uint8_t> mine = std::span(*self.bytes).subspan(offset, stripe_bytes);
        unsigned kind = unsigned(self.model.below(4));
        if (kind == 0) {
            std::vector<std::uint8_t> found(stripe_bytes);
            CO_TRY(co_await read_bytes(device, offset, found));
            if (!std::ranges::equal(found, mine)) co_return error("stripe {} reads as something else", stripe);
        } else if (kind == 1) {
            ZeroFlags flags;
            CO_TRY(co_await write_zeroes(device, offset, stripe_bytes, flags));
            std::ranges::fill(mine, std::uint8_t(0));
        } else {
            std::vector<std::uint8_t> data = self.model.content(stripe_bytes);
            CO_TRY(co_await write_bytes(device, offset, data));
            std::ranges::copy(data, mine.begin());
        }
    }
    co_return Result<void>{};
}

void expect_overlapping_writes_are_one_of_each(BlockBench& bench, BlockDevice& device, std::uint64_t seed) {
    ImageModel model(seed);
    model.bytes.resize(device.size_bytes());
    std::vector<std::vector<std::uint8_t>> data;
    std::vector<ImageModel::Stretch> where;
    std::uint64_t base = model.below(device.size_bytes() - 200000);
    for (unsigned i = 0; i < 12; ++i) {
        where.push_back({base + model.below(100000), 1 + model.below(100000)});
        data.emplace_back(where.back().length, std::uint8_t(i + 1));
    }
    std::vector<Task<Result<void>>> tasks;
    for (unsigned i = 0; i < 12; ++i) tasks.push_back(write_bytes(device, where[i].offset, data[i]));
    ASSERT_TRUE(bench.run(when_all(std::move(tasks))).ok());
    std::vector<std::uint8_t> found(200000);
    ASSERT_TRUE(bench.run(read_bytes(device, base, found)).ok());
    for (std::size_t i = 0; i < found.size(); ++i) {
        bool covered = false, matches = false;
        for (unsigned w = 0; w < 12; ++w) {
            bool in = base + i >= where[w].offset && base + i < where[w].offset + where[w].length;
            covered |= in;
            matches |= in && found[i] == w + 1;
        }
        if (covered && !matches) FAIL() << "seed " << seed << ": byte " << base + i << " is " << int(found[i]);
    }
}

} // namespace

Result<void> create_profile_image(BlockBench& bench, ImageProfile const& profile, std::string const& name) {
    OptionValues extra;
    if (!profile.backing_format.empty()) {
        std::string base = bench.path(name + ".base");
        TRY(create_one(bench, profile.backing_format, "", base, profile.size_bytes / 2 / 512 * 512, {}));
        OpenOptions options;
        options.filename = base;
        options.format = profile.backing_format;
        std::unique_ptr<Image> image = TRY(bench.run(open_image(bench.context, options)));
        std::vector<std::uint8_t> noise = patchy_noise(profile.seed + 99, image->size_bytes());
        TRY(bench.run(write_bytes(*image, 0, noise)));
        TRY(bench.run(close_image(std::move(image))));
        extra.set("backing_file", base);
        extra.set("backing_fmt", profile.backing_format);
    }
    std::string options = profile.create_options;
    if (std::size_t mark = options.find('%'); mark != std::string::npos) options.replace(mark, 1, bench.path(name));
    return create_one(bench, profile.format, options, bench.path(name), profile.size_bytes, extra);
}

Result<std::unique_ptr<Image>> open_profile_image(BlockBench& bench, ImageProfile const& profile,
                                                  std::string const& name, bool read_only) {
    OpenOptions options;
    options.filename = bench.path(name);
    options.format = profile.format;
    options.read_only = read_only;
    options.discard = DiscardMode::unmap;
    options.tree = TRY(OptionValues::parse(profile.open_options));
    return bench.run(open_image(bench.context, options));
}

void image_matches_flat_model(ImageProfile profile) {
    ModelRun run(profile);
    run.run();
}

void image_survives_concurrent_requests(ImageProfile profile) {
    BlockBench bench;
    Result<void> created = create_profile_image(bench, profile, "image");
    ASSERT_TRUE(created.ok()) << created.error().message();
    auto opened = open_profile_image(bench, profile, "image");
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    std::unique_ptr<Image> image = std::move(opened).value();
    ImageModel model(profile.seed);
    ASSERT_TRUE(adopt(bench, *image, model).ok());
    std::vector<Worker> team;
    for (unsigned i = 0; i < workers; ++i) team.push_back({ImageModel(profile.seed * 100 + i), &model.bytes, i, {}});
    std::vector<Task<Result<void>>> tasks;
    for (Worker& worker : team) tasks.push_back(work(*image, worker, profile.operations / workers + 1));
    Result<void> done = bench.run(when_all(std::move(tasks)));
    ASSERT_TRUE(done.ok()) << profile.create_options << ": " << done.error().message();
    expect_check_clean(bench, *image, false, "concurrent");
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
    image = open_profile_image(bench, profile, "image").value();
    std::vector<std::uint8_t> all = read_whole(bench, *image).value();
    expect_equal(all, model.bytes, 0, "after concurrent requests");
    for (unsigned i = 0; i < 10; ++i) expect_overlapping_writes_are_one_of_each(bench, *image, profile.seed + i);
    ASSERT_TRUE(bench.run(close_image(std::move(image))).ok());
}

void image_conforms(ImageProfile profile) {
    // A long run: VMM_CONFORMANCE_ROUNDS=1000 makes a million operations of each thousand, every round with its own
    // seed.
    char const* rounds = std::getenv("VMM_CONFORMANCE_ROUNDS");
    unsigned long operations = 0;
    for (long left = rounds ? std::max(1L, std::atol(rounds)) : 1; left > 0 && !testing::Test::HasFailure(); --left) {
        image_matches_flat_model(profile);
        image_survives_concurrent_requests(profile);
        image_survives_kills(profile);
        if (profile.qemu_reads && have_qemu_img()) image_crosses_with_qemu(profile);
        profile.seed += 1000;
        operations += 2UL * profile.operations;
    }
    if (rounds)
        fmt::print("{} {} {}: {} operations\n", profile.format, profile.create_options, profile.backing_format,
                   operations);
}

} // namespace vmm::block
