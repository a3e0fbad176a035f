// The little AML that is made at run time (ACPI specification, chapter 20).
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

namespace vmm::firmware::aml {

using Code = std::vector<std::uint8_t>;

// Name (\NAME, value); `name` has four characters and lies in the root scope.
Code root_integer(std::string_view name, std::uint32_t value);
// Device (Cnnn) { Name (_HID, "ACPI0007") Name (_UID, index) }; index < 4096.
Code processor(unsigned index);
// Scope (\_SB) { content }.
Code system_bus_scope(Code const& content);

} // namespace vmm::firmware::aml
