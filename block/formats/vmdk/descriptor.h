// The text descriptor of a VMDK: who it is, who its parent is, which extents make up the disk.
#pragma once
#include "vmm/base/result.h"

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::block::vmdk {

inline constexpr std::uint32_t no_parent = 0xffffffff;

struct ExtentLine {
    bool writable = true;
    std::uint64_t sectors = 0;
    std::string type;                 // "FLAT", "SPARSE", "ZERO", "VMFS", "VMFSSPARSE"
    std::string filename;             // as written; empty for ZERO
    std::uint64_t offset_sectors = 0; // of a flat extent in its file
};

struct Descriptor {
    std::uint32_t cid = no_parent, parent_cid = no_parent;
    std::string create_type, parent_hint;
    std::vector<ExtentLine> extents;
    std::size_t cid_position = std::string::npos;        // of the 8 digits in the text; npos: not there as 8 digits
    std::size_t parent_cid_position = std::string::npos; // the same for parentCID
};

// True for text that begins like a descriptor: comments and blanks, then "version=N".
bool looks_like_descriptor(std::string_view text);
// Errors name the line.
Result<Descriptor> parse_descriptor(std::string_view text, std::string const& filename);

} // namespace vmm::block::vmdk
