// Making qcow2 images and saying how large they will be.
#pragma once
#include "block/core/factory.h"
#include "block/formats/qcow2/header.h"

namespace vmm::block::qcow2 {

// In the order in which "Formatting ..." prints them.
std::span<OptionSpec const> create_options();
Task<Result<void>> create_image(BlockContext& context, CreateRequest request);
// Bytes of a file for `size` guest bytes of which `allocated` hold data, as `measure` reports them.
Result<Format::Measure> measure_image(std::uint64_t size, std::uint64_t allocated, OptionValues const& options);
// 2 for "0.10" and "v2", 3 for "1.1" and "v3".
Result<std::uint32_t> parse_compat(std::string const& text);
// The header an image with these options has, without its tables; QEMU's words for what does not go together.
Result<Header> header_from_options(OptionValues const& options);

} // namespace vmm::block::qcow2
