// Vectored requests of vmm-io and what is done with their bytes; shared by the waiting and the aio_ commands.
#pragma once
#include "block/tools/io/command_options.h"

#include <optional>

namespace vmm::block {

inline constexpr int default_pattern = 0xcd; // what is written without -P
inline constexpr int unread_pattern = 0xab;  // in a buffer before it is read into

// "off len [len..]" with its memory.
struct VectorRequest {
    std::uint64_t offset = 0;
    AlignedBuffer memory;
    IoVector parts; // into memory, back to back
    std::optional<int> pattern;
    std::uint64_t length() const { return parts.size_bytes(); }
    Bytes bytes() const { return memory.bytes().first(parts.size_bytes()); }
};
// From the operands and -P (which `fill` is the default of). Nothing: an error was printed.
std::optional<VectorRequest> parse_vector(Flags const& flags, int fill);

// False, with "Pattern verification failed ..." printed, when a byte differs.
bool verify_pattern(ConstBytes bytes, int pattern, std::uint64_t offset);
// Verifies, dumps and reports a finished read; 0 or -EINVAL.
int finish_read(VectorRequest const& request, Flags const& flags, double seconds);
// Repeats the content of a file until `to` is full; false, with the reason printed.
bool fill_from_file(std::string const& name, Bytes to);

} // namespace vmm::block
