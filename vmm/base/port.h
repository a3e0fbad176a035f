// Ports of TCP and UDP as users write them.
#pragma once
#include "vmm/base/result.h"

#include <string_view>

namespace vmm {

// Refuses a number beyond 65535, which getaddrinfo() takes without a word, modulo 65536. Empty, or the name of a
// service, is for the resolver to judge.
Result<void> check_port(std::string_view port);

} // namespace vmm
