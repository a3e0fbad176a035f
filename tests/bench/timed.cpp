// Runs a program and writes to a file what it took: wall seconds, CPU seconds, peak memory in KiB, exit status.
// A program of its own because Linux counts the memory of whoever started a program as the program's peak: a small
// parent makes the figure true.
//
// usage: timed FILE PROGRAM [ARGUMENT...]
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cstdio>

namespace {

double now() {
    timespec t{};
    clock_gettime(CLOCK_MONOTONIC, &t);
    return double(t.tv_sec) + double(t.tv_nsec) * 1e-9;
}
double seconds(timeval const& t) { return double(t.tv_sec) + double(t.tv_usec) * 1e-6; }

} // namespace

int main(int argc, char** argv) {
    if (argc < 3) return std::fprintf(stderr, "usage: timed FILE PROGRAM [ARGUMENT...]\n"), 2;
    double const start = now();
    pid_t const child = fork();
    if (child == 0) {
        execvp(argv[2], argv + 2);
        std::perror(argv[2]);
        _exit(127);
    }
    int status = 0;
    rusage usage{};
    if (child < 0 || wait4(child, &status, 0, &usage) != child) return std::perror("timed"), 2;
    double const wall = now() - start;
    std::FILE* file = std::fopen(argv[1], "w");
    if (!file) return std::perror(argv[1]), 2;
    std::fprintf(file, "%.6f %.6f %ld %d\n", wall, seconds(usage.ru_utime) + seconds(usage.ru_stime), usage.ru_maxrss,
                 WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    return std::fclose(file) == 0 ? 0 : 2;
}
