// Power cuts and killed processes: at worst leaks, and every flushed byte is there.
#include "block/core/aligned_device.h"
#include "block/core/sync.h"
#include "block/formats/qcow2/layout.h"
#include "tests/support/image_conformance.h"
#include "tests/support/power_cut_file.h"
#include "tests/unit/block/qcow2/qcow2_bench.h"

#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <csignal>
#include <fstream>
#include <map>

namespace vmm::block {

namespace {

std::vector<std::uint8_t> read_file(std::string const& path) {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
}
void write_file(std::string const& path, std::vector<std::uint8_t> const& data) {
    std::ofstream(path, std::ios::binary)
        .write(reinterpret_cast<char const*>(data.data()), std::streamsize(data.size()));
}

std::unique_ptr<Image> open_on(Qcow2Bench& bench, std::unique_ptr<PowerCutFile> disk) {
    FormatOpenArgs args{bench.context, std::move(disk), "x.qcow2", {}};
    auto opened = bench.run(bench.formats.find("qcow2")->open(std::move(args)));
    EXPECT_TRUE(opened.ok()) << opened.error().message();
    return std::move(opened).value();
}

// What a check of `content` without repairs reports; the image stays open in `image`.
CheckReport check_of(Qcow2Bench& bench, std::vector<std::uint8_t> const& content, std::unique_ptr<Image>& image) {
    write_file(bench.path("cut.qcow2"), content);
    OpenOptions options = bench.options_for("cut.qcow2");
    options.for_check = true;
    image = bench.open(options);
    auto silent = [](std::string_view) {};
    auto report = bench.run(image->capabilities().checkable->check(RepairMode::none, silent));
    EXPECT_TRUE(report.ok());
    return std::move(report).value();
}

class PowerCut : public testing::TestWithParam<char const*> {};

TEST_P(PowerCut, leaves_flushed_bytes_and_at_worst_leaks) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 1 << 20, GetParam());
    std::vector<std::uint8_t> const empty = read_file(bench.path("x.qcow2"));
    for (std::uint64_t seed = 0; seed < 40 && !testing::Test::HasFailure(); ++seed) {
        std::mt19937_64 random(seed);
        auto device = std::make_unique<PowerCutFile>(empty);
        PowerCutFile* disk = device.get();
        FormatOpenArgs args{bench.context, std::move(device), "x.qcow2", {}};
        auto opened = bench.run(bench.formats.find("qcow2")->open(std::move(args)));
        ASSERT_TRUE(opened.ok()) << opened.error().message();
        std::unique_ptr<Image> image = std::move(opened).value();
        ModelRun model(bench, seed, std::vector<std::uint8_t>(1 << 20));
        // A byte may be its flushed value or any later one.
        std::vector<std::uint8_t> flushed = model.model();
        std::vector<bool> touched(1 << 20);
        std::uint64_t const steps = 1 + random() % 60;
        for (std::uint64_t i = 0; i < steps; ++i) {
            std::uint64_t offset = model.pick(1 << 20),
                          length = std::min<std::uint64_t>(1 + model.pick(50000), (1 << 20) - offset);
            switch (model.pick(6)) {
            case 0: model.zero(*image, offset, length, model.pick(2)); break;
            case 1: model.discard(*image, offset, length); break;
            case 2:
                ASSERT_TRUE(bench.run(image->flush()).ok());
                flushed = model.model();
                touched.assign(1 << 20, false);
                continue;
            default: model.write(*image, offset, length);
            }
            std::fill_n(touched.begin() + std::ptrdiff_t(offset), length, true);
        }
        write_file(bench.path("cut.qcow2"), disk->after_power_cut(random));
        ASSERT_TRUE(bench.run(image->close()).ok());
        OpenOptions options = bench.options_for("cut.qcow2");
        options.for_check = true;
        auto after = bench.open(options);
        ASSERT_TRUE(after) << "seed " << seed;
        auto print = [](std::string_view line) { std::printf("%.*s\n", int(line.size()), line.data()); };
        auto silent = [](std::string_view) {};
        auto report = bench.run(after->capabilities().checkable->check(RepairMode::none, silent));
        ASSERT_TRUE(report.ok());
        EXPECT_EQ(report->corruptions, 0u) << "seed " << seed;
        if (report->corruptions) (void)bench.run(after->capabilities().checkable->check(RepairMode::none, print));
        std::vector<std::uint8_t> now = bench.read(*after, 0, 1 << 20);
        for (std::size_t i = 0; i < now.size(); ++i)
            if (!touched[i] && now[i] != flushed[i]) {
                ADD_FAILURE() << "seed " << seed << ": flushed byte " << i << " is " << int(now[i]) << ", not "
                              << int(flushed[i]);
                break;
            }
        bench.close(std::move(after));
    }
}

INSTANTIATE_TEST_SUITE_P(shapes, PowerCut,
                         testing::Values("", "cluster_size=512", "cluster_size=4096,refcount_bits=1",
                                         "compat=0.10,cluster_size=4096", "extended_l2=on,cluster_size=16k",
                                         "cluster_size=512,refcount_bits=64"));

TEST_P(PowerCut, in_the_midst_of_a_flush_leaves_what_was_flushed_before) {
    ImageProfile profile;
    profile.format = "qcow2";
    profile.create_options = GetParam();
    profile.size_bytes = 2 << 20;
    image_survives_power_cuts(profile);
}

// The refcounts get another width; the power goes after each write in turn.
TEST(Qcow2RefcountWidth, changes_whole_and_a_power_cut_at_any_write_leaves_at_worst_leaks) {
    for (unsigned bits : {1u, 2u, 64u}) {
        Qcow2Bench bench;
        bench.create("x.qcow2", 1 << 20, "cluster_size=512");
        std::vector<std::uint8_t> const data(300000, 7);
        auto first = bench.open("x.qcow2");
        bench.write(*first, 12345, data);
        if (bits > 1) {
            SnapshotRequest snapshot;
            snapshot.name = "s";
            ASSERT_TRUE(bench.run(first->capabilities().snapshots->create(snapshot)).ok());
        }
        bench.close(std::move(first));
        auto device = std::make_unique<PowerCutFile>(read_file(bench.path("x.qcow2")));
        PowerCutFile* disk = device.get();
        std::unique_ptr<Image> image = open_on(bench, std::move(device));
        std::vector<std::vector<std::uint8_t>> cuts;
        std::mt19937_64 random(bits);
        disk->on_write([&] { cuts.push_back(disk->after_power_cut(random)); });
        Amendable::Request request;
        request.changes = OptionValues::parse(fmt::format("refcount_bits={}", bits)).value();
        Result<void> amended = bench.run(image->capabilities().amendable->amend(request));
        ASSERT_TRUE(amended.ok()) << amended.error().message();
        EXPECT_GT(cuts.size(), 4u);
        disk->on_write({});
        ASSERT_TRUE(bench.run(image->flush()).ok());
        cuts.push_back(disk->after_power_cut(random));
        ASSERT_TRUE(bench.run(image->close()).ok());
        for (std::size_t i = 0; i < cuts.size(); ++i) {
            std::unique_ptr<Image> after;
            CheckReport report = check_of(bench, cuts[i], after);
            EXPECT_EQ(report.corruptions, 0u) << bits << " bits, write " << i;
            if (i + 1 == cuts.size()) {
                EXPECT_EQ(report.leaks, 0u);
            }
            EXPECT_TRUE(bench.read(*after, 12345, data.size()) == data) << bits << " bits, write " << i;
            bench.close(std::move(after));
        }
        EXPECT_EQ(unsigned(cuts.back()[99]), unsigned(std::countr_zero(bits)));
        bench.expect_clean("cut.qcow2");
    }
}

// The refcount table outgrows its place and moves, the L1 table too in the second round; the power goes after each
// write of the flush in turn, or the process is killed there.
TEST(Qcow2RefcountTable, moves_and_a_power_cut_at_any_write_leaves_at_worst_leaks) {
    for (bool with_l1 : {false, true}) {
        Qcow2Bench bench;
        bench.create("x.qcow2", 4 << 20, "cluster_size=512,refcount_bits=64");
        auto first = bench.open("x.qcow2");
        bench.write(*first, 0, std::vector<std::uint8_t>(1950 << 10, 7)); // 64 entries of a table full, but for one
        bench.close(std::move(first));
        auto device = std::make_unique<PowerCutFile>(read_file(bench.path("x.qcow2")));
        PowerCutFile* disk = device.get();
        std::vector<std::uint8_t> const before = disk->now();
        std::unique_ptr<Image> image = open_on(bench, std::move(device));
        bench.write(*image, 1951 << 10, std::vector<std::uint8_t>(100 << 10, 8));
        std::vector<std::vector<std::uint8_t>> cuts;
        std::mt19937_64 random(with_l1);
        disk->on_write([&] {
            cuts.push_back(disk->after_power_cut(random));
            cuts.push_back(disk->now());
        });
        if (with_l1) {
            ResizeRequest request{.new_size_bytes = 16 << 20};
            ASSERT_TRUE(bench.run(image->capabilities().resizable->resize(request)).ok());
        } else {
            ASSERT_TRUE(bench.run(image->flush()).ok());
        }
        disk->on_write({});
        ASSERT_TRUE(bench.run(image->flush()).ok());
        cuts.push_back(disk->now());
        EXPECT_NE(qcow2::load_be64(cuts.back().data() + 48), qcow2::load_be64(before.data() + 48))
            << "the refcount table did not move";
        EXPECT_EQ(qcow2::load_be64(cuts.back().data() + 40) != qcow2::load_be64(before.data() + 40), with_l1);
        ASSERT_TRUE(bench.run(image->close()).ok());
        for (std::size_t i = 0; i < cuts.size(); ++i) {
            std::unique_ptr<Image> after;
            EXPECT_EQ(check_of(bench, cuts[i], after).corruptions, 0u) << "cut " << i;
            EXPECT_TRUE(bench.read(*after, 0, 1950 << 10) == std::vector<std::uint8_t>(1950 << 10, 7)) << "cut " << i;
            bench.close(std::move(after));
        }
        bench.expect_clean("cut.qcow2");
    }
}

TEST(Qcow2RefcountWidth, that_a_count_does_not_fit_into_changes_nothing) {
    Qcow2Bench bench;
    bench.create("x.qcow2", 1 << 20);
    auto image = bench.open("x.qcow2");
    bench.write(*image, 0, std::vector<std::uint8_t>(65536, 7));
    SnapshotRequest snapshot;
    snapshot.name = "s";
    ASSERT_TRUE(bench.run(image->capabilities().snapshots->create(snapshot)).ok());
    std::vector<std::uint8_t> const before = read_file(bench.path("x.qcow2"));
    Amendable::Request request;
    request.changes = OptionValues::parse("refcount_bits=1,lazy_refcounts=on").value();
    Result<void> amended = bench.run(image->capabilities().amendable->amend(request));
    ASSERT_FALSE(amended.ok());
    EXPECT_NE(amended.error().message().find("Cannot decrease refcount entry width to 1 bits: Cluster at offset 0x"),
              std::string::npos)
        << amended.error().message();
    EXPECT_TRUE(read_file(bench.path("x.qcow2")) == before);
    bench.close(std::move(image));
}

// A child writes and flushes, telling what is flushed through a pipe, until it is killed.
TEST(Qcow2Kill, a_killed_writer_leaves_what_it_flushed) {
    Qcow2Bench bench;
    constexpr std::uint64_t size = 8 << 20, block = 4096;
    for (int round = 0; round < 10; ++round) {
        bench.create("x.qcow2", size, round % 2 ? "cluster_size=4096" : "");
        int pipe_fds[2];
        ASSERT_EQ(pipe(pipe_fds), 0);
        pid_t child = fork();
        if (child == 0) {
            Qcow2Bench own;
            OpenOptions options = own.options_for("unused");
            options.filename = bench.path("x.qcow2");
            auto image = own.run(open_image(own.context, options));
            if (!image.ok()) _exit(1);
            std::mt19937_64 random(std::uint64_t(round) + 1);
            for (std::uint32_t n = 1;; ++n) {
                std::uint64_t at = random() % (size / block);
                std::vector<std::uint8_t> data(block, std::uint8_t(n % 255 + 1));
                ConstBytes all(data);
                if (!own.run(write_bytes(**image, at * block, all)).ok()) _exit(2);
                std::uint32_t record[2] = {std::uint32_t(at), n % 255 + 1};
                if (n % 8 == 0) {
                    if (!own.run((*image)->flush()).ok()) _exit(3);
                    record[0] |= 0x80000000u;
                }
                if (::write(pipe_fds[1], record, sizeof record) != sizeof record) _exit(4);
            }
        }
        ::close(pipe_fds[1]);
        std::map<std::uint64_t, std::uint32_t> expected; // block -> flushed value
        std::map<std::uint64_t, std::uint32_t> pending;
        std::uint32_t record[2];
        int got = 0;
        int const until = 100 + round * 37;
        auto take = [&] {
            if (::read(pipe_fds[0], record, sizeof record) != sizeof record) return false;
            std::uint64_t at = record[0] & 0x7fffffffu;
            pending[at] = record[1];
            if (record[0] & 0x80000000u) {
                for (auto const& [where, value] : pending) expected[where] = value;
                pending.clear();
            }
            return true;
        };
        while (got < until && take()) ++got;
        kill(child, SIGKILL);
        int status = 0;
        waitpid(child, &status, 0);
        ASSERT_TRUE(WIFSIGNALED(status));
        while (take()) {
        }
        ::close(pipe_fds[0]);
        OpenOptions options = bench.options_for("x.qcow2");
        options.for_check = true;
        auto image = bench.open(options);
        auto report = bench.run(image->capabilities().checkable->check(RepairMode::none, [](std::string_view) {}));
        ASSERT_TRUE(report.ok());
        EXPECT_EQ(report->corruptions, 0u);
        int mismatches = 0;
        for (auto const& [at, value] : expected)
            if (!pending.contains(at)) mismatches += bench.read(*image, at * block, 1)[0] != value;
        EXPECT_LE(mismatches, 1); // the write that was under way had not been told about
        bench.close(std::move(image));
    }
}

// Requests in flight at once, overlapping each other's clusters but not each other's bytes.
TEST(Qcow2Concurrency, requests_in_flight_together_all_take_effect) {
    for (char const* shape : {"", "cluster_size=512", "extended_l2=on,cluster_size=16k", "cluster_size=2M"}) {
        Qcow2Bench bench;
        bench.create("x.qcow2", 8 << 20, shape);
        auto image = bench.open("x.qcow2");
        std::mt19937_64 random(11);
        std::vector<std::uint8_t> model(8 << 20);
        for (int round = 0; round < 30; ++round) {
            std::vector<std::vector<std::uint8_t>> data;
            std::vector<Task<Result<void>>> tasks;
            std::uint64_t at = random() % 1000;
            data.reserve(128);
            while (data.size() < 128 && at + 40000 < model.size()) {
                std::uint64_t length = 1 + random() % 40000;
                data.emplace_back(length, std::uint8_t(random()));
                std::ranges::copy(data.back(), model.begin() + std::ptrdiff_t(at));
                if (random() % 16 == 0) tasks.push_back(image->flush());
                if (random() % 10 == 0) {
                    std::fill_n(model.begin() + std::ptrdiff_t(at), length, 0);
                    tasks.push_back(write_zeroes(*image, at, length, ZeroFlags{.may_unmap = random() % 2 == 0}));
                } else {
                    tasks.push_back(write_bytes(*image, at, ConstBytes(data.back())));
                }
                at += length + (random() % 4 == 0 ? random() % 30000 : 0);
            }
            std::shuffle(tasks.begin(), tasks.end(), random);
            Result<void> done = bench.run(when_all(std::move(tasks)));
            ASSERT_TRUE(done.ok()) << done.error().message();
        }
        EXPECT_TRUE(bench.read(*image, 0, model.size()) == model) << shape;
        bench.close(std::move(image));
        bench.expect_clean("x.qcow2");
    }
}

} // namespace
} // namespace vmm::block
