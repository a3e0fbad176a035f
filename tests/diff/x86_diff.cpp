// x86_diff: random sequences on the host CPU and on our engines; prints what differs, shrunk to what matters.
//
// usage: x86_diff [--engine interp|jit|both] [--count N] [--seed FIRST] [--families MASK] [--jobs N] [--limit N]
// [--whole]
//                 [--show] [--trace]
// --limit: how many differences each job prints; --whole prints them as generated; --show prints every sequence;
// --trace: runs a difference once more with the engines' `-d in_asm,op,out_asm` on standard error.
#include "tests/diff/generator.h"
#include "tests/diff/guest_runner.h"
#include "tests/diff/minimise.h"
#include "tests/diff/native_runner.h"
#include "vmm/tcg/x64/backend.h"

#include <fmt/core.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

using namespace vmm;
using namespace vmm::diff;

namespace {

struct Options {
    std::string engine = "both";
    std::uint64_t count = 1000, first = 1;
    unsigned families = everything, limit = 10, jobs = 1;
    bool show = false, minimise = true, trace = false;
};

// Shared by the jobs, which are processes.
struct Totals {
    std::atomic<std::uint64_t> ran, killed, different, instructions;
};

std::unique_ptr<tcg::Backend> make_jit(tcg::EngineContext& context, tcg::GuestInfo const& guest) {
    auto made = tcg::x64::X64Backend::create(context, guest, {.cache_bytes = 16u << 20, .count_instructions = true});
    return made ? std::move(*made) : nullptr;
}

class Job {
public:
    Job(Options const& options, Totals& totals) : options_(options), totals_(totals) {
        if (options.engine != "jit")
            guests_.push_back({"interp", std::make_unique<GuestRunner>(tcg::make_interpreter)});
        if (options.engine != "interp") guests_.push_back({"jit", std::make_unique<GuestRunner>(make_jit)});
    }

    // Takes a seed in; sequences run when a batch is together, or with finish().
    void take(std::uint64_t seed) {
        waiting_.push_back(generate(seed, options_.families, backdrop_));
        if (options_.show) fmt::print("{}", describe(waiting_.back()));
        if (waiting_.size() == NativeRunner::batch) finish();
    }
    void finish() {
        native_.run_all(waiting_, results_);
        for (std::size_t i = 0; i < waiting_.size(); ++i) judge(std::move(waiting_[i]), results_[i]);
        waiting_.clear();
    }

private:
    void judge(Sequence q, NativeRunner::Result const& host) {
        std::uint64_t const seed = q.seed;
        std::string difference;
        if (!host.ran) {
            ++totals_.killed;
            fmt::print("not comparable ({}): --seed {} --families {}\n", native_.failure(), seed, options_.families);
            std::fflush(stdout);
            return;
        }
        expected_ = host.outcome;
        compare_guests(q, difference);
        ++totals_.ran, totals_.instructions += q.instructions.size();
        if (difference.empty()) return;
        ++totals_.different;
        if (printed_++ >= options_.limit) return;
        fmt::print("--- difference, reproduce with --engine {} --seed {} --count 1 --families {}\n", options_.engine,
                   seed, options_.families);
        if (options_.minimise) {
            // What is left shows the same difference, not some other one that came of the shrinking.
            int const expected = expected_.vector, actual = actual_.vector;
            q = minimise(std::move(q), [&](Sequence const& candidate) {
                std::string text;
                return difference_of(candidate, text) && !text.empty() && expected_.vector == expected &&
                       actual_.vector == actual;
            });
            difference_of(q, difference);
        }
        fmt::print("{}{}", describe(q), difference);
        if (options_.trace) {
            for (auto const& guest : guests_) guest.runner->trace(true);
            difference_of(q, difference);
            for (auto const& guest : guests_) guest.runner->trace(false);
        }
        std::fflush(stdout);
    }

    // False: the host process did not survive the sequence, or did not come to its end.
    bool difference_of(Sequence const& q, std::string& text) {
        text.clear();
        if (!native_.run(q, expected_)) return false;
        compare_guests(q, text);
        return true;
    }
    // With what the host did, in expected_.
    void compare_guests(Sequence const& q, std::string& text) {
        for (auto const& guest : guests_) {
            guest.runner->run(q, actual_);
            std::string const differences = compare(q, expected_, actual_);
            if (!differences.empty()) text += fmt::format("{}:\n{}", guest.name, differences);
        }
    }

    struct Guest {
        char const* name;
        std::unique_ptr<GuestRunner> runner;
    };

    Options const& options_;
    Backdrop backdrop_;
    NativeRunner native_;
    std::vector<Guest> guests_;
    Totals& totals_;
    std::vector<Sequence> waiting_;
    std::vector<NativeRunner::Result> results_{NativeRunner::batch};
    Outcome expected_, actual_;
    unsigned printed_ = 0;
};

void report(Totals const& t, std::FILE* to, char const* end) {
    fmt::print(to, "{} sequences, {} instructions, {} different, {} not comparable{}", t.ran.load(),
               t.instructions.load(), t.different.load(), t.killed.load(), end);
    std::fflush(to);
}

// Runs the jobs as child processes and waits for them, with a progress line where someone may be looking.
bool run_jobs(Options const& options, Totals& totals) {
    std::vector<pid_t> children;
    for (unsigned i = 0; i < options.jobs; ++i) {
        pid_t child = fork();
        if (child < 0) return false;
        if (child == 0) {
            Job job(options, totals);
            for (std::uint64_t n = i; n < options.count; n += options.jobs) job.take(options.first + n);
            job.finish();
            std::fflush(stdout);
            std::_Exit(0);
        }
        children.push_back(child);
    }
    bool good = true;
    unsigned since_report = 0;
    while (!children.empty()) {
        int status;
        if (waitpid(children.back(), &status, WNOHANG) == 0) {
            usleep(20'000);
            if (++since_report % 500 == 0) report(totals, stderr, "\n");
            continue;
        }
        good &= WIFEXITED(status) && WEXITSTATUS(status) == 0;
        children.pop_back();
    }
    return good;
}

bool parse(int argc, char** argv, Options& o) {
    for (int i = 1; i < argc; ++i) {
        std::string name = argv[i];
        auto number = [&] { return ++i < argc ? std::strtoull(argv[i], nullptr, 0) : 0; };
        if (name == "--engine")
            o.engine = ++i < argc ? argv[i] : "";
        else if (name == "--count")
            o.count = number();
        else if (name == "--seed")
            o.first = number();
        else if (name == "--families")
            o.families = unsigned(number());
        else if (name == "--limit")
            o.limit = unsigned(number());
        else if (name == "--jobs")
            o.jobs = std::max(1u, unsigned(number()));
        else if (name == "--whole")
            o.minimise = false;
        else if (name == "--trace")
            o.trace = true;
        else if (name == "--show")
            o.show = true;
        else
            return fmt::print(stderr, "x86_diff: unknown option {}\n", name), false;
    }
    if (o.engine != "interp" && o.engine != "jit" && o.engine != "both")
        return fmt::print(stderr, "x86_diff: unknown engine {}\n", o.engine), false;
    return true;
}

} // namespace

int main(int argc, char** argv) {
    Options options;
    if (!parse(argc, argv, options)) return 2;
    if (options.engine != "interp" && !tcg::x64::supported())
        return fmt::print("skipped: this host CPU lacks AVX2 or BMI2\n"), 77;
    void* shared = mmap(nullptr, sizeof(Totals), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) return 2;
    auto& totals = *new (shared) Totals{};
    bool good = run_jobs(options, totals);
    report(totals, stdout, "\n");
    return !good || totals.different || totals.ran == 0;
}
