// NativeRunner: executes sequences on the host CPU, in a child process.
#pragma once
#include "tests/diff/sample.h"

#include <sys/types.h>

#include <memory>
#include <span>
#include <string>

namespace vmm::diff {

// One child serves many sequences through shared memory; when one kills it, the next run starts another.
class NativeRunner {
public:
    NativeRunner();
    ~NativeRunner();
    NativeRunner(NativeRunner const&) = delete;
    NativeRunner& operator=(NativeRunner const&) = delete;
    // False: the sequence killed the child (not to be compared).
    bool run(Sequence const& sequence, Outcome& out);
    // The same for several, at most `batch`, in one exchange with the child: on a busy machine each exchange waits for
    // its turn twice. results[i].ran says what run() would have.
    static constexpr unsigned batch = 32;
    struct Result {
        bool ran = false;
        Outcome outcome;
    };
    void run_all(std::span<Sequence const> sequences, std::span<Result> results);
    // Why the last failed run failed.
    std::string const& failure() const { return why_; }

private:
    struct Shared;
    void start_child();
    void serve(unsigned slot);
    // Says how the child ended, or that it had not.
    std::string stop_child();
    std::string why_;
    Shared* shared_;
    pid_t child_ = -1;
    int to_child_ = -1, from_child_ = -1;
};

} // namespace vmm::diff
