// Text of host code, for logs and golden tests.
#pragma once
#include <cstdint>
#include <span>
#include <string>

namespace vmm::tcg::x64 {

// One instruction a line, in Intel syntax; `address` is where the code runs.
std::string disassemble(std::span<std::uint8_t const> code, std::uint64_t address);

} // namespace vmm::tcg::x64
