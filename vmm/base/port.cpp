#include "vmm/base/port.h"

#include <charconv>

namespace vmm {

Result<void> check_port(std::string_view port) {
    if (port.find_first_not_of("0123456789") != port.npos) return {};
    unsigned number = 0;
    auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), number);
    if (failure == std::errc::result_out_of_range || number > 0xffff) return error("port {} is beyond 65535", port);
    return {};
}

} // namespace vmm
