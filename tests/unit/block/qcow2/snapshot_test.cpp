// Internal snapshots: random work between making, applying and removing them; VM state; both ways with qemu-img.
#include "tests/unit/block/qcow2/qcow2_bench.h"

#include <map>

namespace vmm::block {

namespace {

CheckReport check(Qcow2Bench& bench, Image& image, RepairMode repair = RepairMode::none) {
    auto print = [](std::string_view line) { std::printf("check: %.*s\n", int(line.size()), line.data()); };
    Result<CheckReport> report = bench.run(image.capabilities().checkable->check(repair, print));
    EXPECT_TRUE(report.ok()) << report.error().message();
    return report.ok() ? *report : CheckReport{};
}

void expect_no_findings(CheckReport const& r) {
    EXPECT_EQ(r.corruptions, 0u);
    EXPECT_EQ(r.leaks, 0u);
    EXPECT_EQ(r.check_errors, 0u);
}

class RandomSnapshots : public testing::TestWithParam<char const*> {};

TEST_P(RandomSnapshots, every_snapshot_keeps_its_content) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 1 << 20, GetParam());
    ModelRun model(bench, 3, std::vector<std::uint8_t>(1 << 20));
    std::map<std::string, std::vector<std::uint8_t>> kept;
    auto image = bench.open("x.qcow2");
    ASSERT_TRUE(image);
    for (int i = 0; i < 300 && !testing::Test::HasFailure(); ++i) {
        Snapshots* snapshots = image->capabilities().snapshots;
        switch (model.pick(12)) {
        case 0: {
            if (kept.size() > 4) break;
            SnapshotRequest request;
            request.name = "s" + std::to_string(i);
            Result<void> made = bench.run(snapshots->create(request));
            ASSERT_TRUE(made.ok()) << made.error().message();
            kept[request.name] = model.model();
            break;
        }
        case 1:
            if (!kept.empty()) {
                auto one = std::next(kept.begin(), std::ptrdiff_t(model.pick(kept.size())));
                Result<void> applied = bench.run(snapshots->apply(one->first));
                ASSERT_TRUE(applied.ok()) << applied.error().message();
                model.model() = one->second;
                model.compare_all(*image);
            }
            break;
        case 2:
            if (!kept.empty()) {
                auto one = std::next(kept.begin(), std::ptrdiff_t(model.pick(kept.size())));
                Result<void> removed = bench.run(snapshots->remove(one->first));
                ASSERT_TRUE(removed.ok()) << removed.error().message();
                kept.erase(one);
            }
            break;
        case 3:
            expect_no_findings(check(bench, *image));
            bench.close(std::move(image));
            bench.expect_clean("x.qcow2");
            image = bench.open("x.qcow2");
            break;
        default: model.step(*image, 100000);
        }
    }
    model.compare_all(*image);
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    for (auto const& [name, content] : kept) { // as the convert command would read them
        auto view = bench.open("x.qcow2", true);
        ASSERT_TRUE(bench.run(view->capabilities().snapshots->load_read_only(name)).ok());
        EXPECT_TRUE(bench.read(*view, 0, content.size()) == content) << name;
        bench.close(std::move(view));
    }
}

INSTANTIATE_TEST_SUITE_P(shapes, RandomSnapshots,
                         testing::Values("", "cluster_size=512", "cluster_size=512,refcount_bits=64", "compat=0.10",
                                         "cluster_size=4096,refcount_bits=8", "extended_l2=on,cluster_size=16k",
                                         "compression_type=zstd,cluster_size=16k"));

TEST(Qcow2Snapshots, vm_state_comes_back_with_its_snapshot) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 10 << 20);
    auto image = bench.open("x.qcow2");
    Snapshots* snapshots = image->capabilities().snapshots;
    std::vector<std::uint8_t> state(300000, 0x5a), back(300000);
    ConstBytes from(state);
    IoVector parts(from);
    ASSERT_TRUE(bench.run(snapshots->write_vm_state(0, parts.const_spans())).ok());
    SnapshotRequest request;
    request.name = "vm";
    request.vm_state_size_bytes = state.size();
    ASSERT_TRUE(bench.run(snapshots->create(request)).ok());
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    snapshots = image->capabilities().snapshots;
    ASSERT_EQ(snapshots->list().size(), 1u);
    EXPECT_EQ(snapshots->list()[0].vm_state_size_bytes, state.size());
    ASSERT_TRUE(bench.run(snapshots->apply("vm")).ok());
    Bytes to(back);
    IoVector back_parts(to);
    ASSERT_TRUE(bench.run(snapshots->read_vm_state(0, back_parts.spans())).ok());
    EXPECT_TRUE(back == state);
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
}

TEST(Qcow2Snapshots, qemu_lists_applies_and_removes_ours_and_we_its) {
    if (!Qcow2Bench::have_qemu_img()) GTEST_SKIP() << "qemu-img is not installed";
    Qcow2Bench bench;
    bench.create("x.qcow2", 4 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(200000, 1));
    SnapshotRequest request;
    request.name = "ours";
    ASSERT_TRUE(bench.run(image->capabilities().snapshots->create(request)).ok());
    bench.write(*image, 0, std::vector<std::uint8_t>(200000, 2));
    bench.close(std::move(image));
    ASSERT_EQ(bench.qemu_img("snapshot -l x.qcow2"), 0);
    EXPECT_NE(bench.last_output.find("ours"), std::string::npos) << bench.last_output;
    ASSERT_EQ(bench.qemu_img("snapshot -c theirs x.qcow2"), 0) << bench.last_output;
    ASSERT_EQ(bench.qemu_img("snapshot -a ours x.qcow2"), 0) << bench.last_output;
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    EXPECT_EQ(bench.read(*image, 1000, 1)[0], 1);
    ASSERT_TRUE(bench.run(image->capabilities().snapshots->apply("theirs")).ok());
    EXPECT_EQ(bench.read(*image, 1000, 1)[0], 2);
    ASSERT_TRUE(bench.run(image->capabilities().snapshots->remove("theirs")).ok());
    bench.close(std::move(image));
    ASSERT_EQ(bench.qemu_img("snapshot -d ours x.qcow2"), 0) << bench.last_output;
    bench.expect_clean("x.qcow2");
}

TEST(Qcow2Snapshots, applying_restores_the_disk_size) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 1 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 500000, std::vector<std::uint8_t>(1000, 9));
    SnapshotRequest request;
    request.name = "small";
    ASSERT_TRUE(bench.run(image->capabilities().snapshots->create(request)).ok());
    ResizeRequest grow;
    grow.new_size_bytes = 600 << 20;
    ASSERT_TRUE(bench.run(image->capabilities().resizable->resize(grow)).ok());
    bench.write(*image, 599 << 20, std::vector<std::uint8_t>(70000, 3));
    ASSERT_TRUE(bench.run(image->capabilities().snapshots->apply("1")).ok());
    EXPECT_EQ(image->size_bytes(), 1u << 20);
    EXPECT_EQ(bench.read(*image, 500001, 1)[0], 9);
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
}

TEST(Qcow2Check, leaks_and_wrong_counts_are_found_and_repaired) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 4 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(1 << 20, 7));
    bench.close(std::move(image));
    // The refcount block is cluster 2: one count too high, one used cluster free.
    ASSERT_EQ(bench.shell("printf '\\000\\005' | dd of=x.qcow2 bs=1 seek=131082 conv=notrunc && "
                          "printf '\\000\\000' | dd of=x.qcow2 bs=1 seek=131088 conv=notrunc"),
              0);
    OpenOptions options = bench.options_for("x.qcow2");
    options.for_check = true;
    image = bench.open(options);
    CheckReport before = check(bench, *image);
    EXPECT_EQ(before.leaks, 1u);
    EXPECT_GE(before.corruptions, 1u);
    check(bench, *image, RepairMode::all);
    expect_no_findings(check(bench, *image));
    EXPECT_EQ(bench.read(*image, 5 * 65536, 1)[0], 7);
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
}

TEST(Qcow2Check, a_destroyed_refcount_table_is_rebuilt) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 4 << 20, "cluster_size=512");
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(1 << 20, 7));
    bench.close(std::move(image));
    ASSERT_EQ(bench.shell("dd if=/dev/urandom of=x.qcow2 bs=1 seek=512 count=64 conv=notrunc"), 0);
    OpenOptions options = bench.options_for("x.qcow2");
    options.for_check = true;
    image = bench.open(options);
    ASSERT_TRUE(image);
    check(bench, *image, RepairMode::all);
    expect_no_findings(check(bench, *image));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
    image = bench.open("x.qcow2");
    EXPECT_EQ(bench.read(*image, 1 << 19, 1)[0], 7);
    bench.write(*image, 2 << 20, std::vector<std::uint8_t>(1 << 20, 8));
    bench.close(std::move(image));
    bench.expect_clean("x.qcow2");
}

} // namespace
} // namespace vmm::block
