// Guest architectures as the program's name asks for them: "vmm-system-aarch64" is a link to the one program.
#pragma once
#include "vmm/base/error.h"
#include "vmm/options/offering.h"

#include <span>
#include <string_view>

namespace vmm {

// What follows "-system-" in a program's name ("aarch64", "x86_64"); empty when the name says nothing.
std::string_view architecture_in_name(std::string_view program);

// Whether this build runs guests of `architecture`; variants such as "x86_64-spice" count. Empty is the first one.
bool offers_architecture(Offering const& offering, std::string_view architecture);

// What to tell who asked for guests of an `architecture` that this build has not; `argv` says with which engine.
Error foreign_architecture(Offering const& offering, std::string_view architecture, std::span<char const* const> argv);

} // namespace vmm
