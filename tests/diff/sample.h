// What a test sequence starts from and what it leaves: the same aggregate for the host CPU and for our engines.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace vmm::diff {

// The linear address space both sides run in: code, then data (two writable pages, one read-only, nothing behind),
// stack.
inline constexpr std::uint64_t code_base = 0x10000000, code_size = 0x2000;
inline constexpr std::uint64_t data_base = 0x20000000, data_writable = 0x2000, data_size = 0x3000;
inline constexpr std::uint64_t stack_base = 0x30000000, stack_size = 0x2000;

struct Registers {
    std::array<std::uint64_t, 16> gpr{};
    std::uint64_t rip = 0, rflags = 0x202;
    std::array<std::array<std::uint64_t, 4>, 16> ymm{};
    std::uint32_t mxcsr = 0x1f80;
    std::uint16_t fcw = 0x37f, fsw = 0;
    std::uint8_t tags = 0; // abridged
    std::uint16_t fop = 0;
    std::uint64_t fip = 0, fdp = 0;
    std::array<std::array<std::uint8_t, 10>, 8> st{}; // ST0..ST7
};

struct Outcome {
    Registers registers;
    std::array<std::uint8_t, data_size> data{};
    std::array<std::uint8_t, stack_size> stack{};
    int vector = -1;           // the exception that ended it
    std::uint64_t error = 0;   // its error code where it has one
    std::uint64_t address = 0; // #PF: CR2
};

struct Sequence {
    std::uint64_t seed = 0;
    bool long_mode = true; // else 32-bit code in compatibility mode
    Registers start;
    std::array<std::uint8_t, data_size> data{};
    std::array<std::uint8_t, stack_size> stack{};
    std::vector<std::uint8_t> code; // ends in INT3
    unsigned code_offset = 0;       // where in the code pages it lies
    struct Instruction {
        unsigned offset = 0, length = 0; // in `code`
        // What it does with the arithmetic flags: which it needs, gives a value, leaves undefined.
        std::uint64_t tested = 0, defined = 0, undefined = 0;
        int target = -1; // a jump: index of the instruction it may go to
        bool falls_through = true;
        int needed_by = -1; // must stay as long as that instruction does (a loop's counting)
        // A faulting MMX instruction may have begun the transition to MMX state: TOP and tags are then the CPU's
        // choice.
        bool mmx = false;
        bool dropped = false;               // overwritten with NOPs by the minimiser
        std::uint64_t undefined_before = 0; // computed by track_flags(): flags undefined when it starts
    };
    std::vector<Instruction> instructions;
    std::uint64_t undefined_at_end = 0;
};

// Computes undefined_before and undefined_at_end over all paths. False: an instruction uses flags that are undefined.
bool track_flags(Sequence& sequence);

// Differences as text, empty when equal where the architecture defines it.
std::string compare(Sequence const& sequence, Outcome const& expected, Outcome const& actual);
// The sequence as assembly with its start state, for a report.
std::string describe(Sequence const& sequence);

} // namespace vmm::diff
