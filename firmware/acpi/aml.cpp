#include "firmware/acpi/aml.h"

#include "vmm/base/assert.h"

#include <fmt/format.h>

namespace vmm::firmware::aml {

namespace {
enum : std::uint8_t {
    name_op = 0x08,
    dword_prefix = 0x0c,
    string_prefix = 0x0d,
    scope_op = 0x10,
    ext_op = 0x5b,
    root_char = 0x5c,
    device_op = 0x82
};

void add(Code& to, std::string_view text) { to.insert(to.end(), text.begin(), text.end()); }
void add(Code& to, Code const& code) { to.insert(to.end(), code.begin(), code.end()); }
void add_dword(Code& to, std::uint32_t value) {
    to.push_back(dword_prefix);
    for (int shift = 0; shift < 32; shift += 8) to.push_back(std::uint8_t(value >> shift));
}

// PkgLength: counts itself. One byte up to 63, else 4 bits and one to three more bytes.
Code with_package_length(Code const& content) {
    Code out;
    if (content.size() + 1 < 64) {
        out.push_back(std::uint8_t(content.size() + 1));
    } else {
        unsigned const extra = content.size() + 2 < 1u << 12 ? 1 : content.size() + 3 < 1u << 20 ? 2 : 3;
        std::size_t const length = content.size() + 1 + extra;
        VMM_ASSERT(length < 1u << 28);
        out.push_back(std::uint8_t(extra << 6 | (length & 0xf)));
        for (unsigned i = 0; i < extra; ++i) out.push_back(std::uint8_t(length >> (4 + 8 * i)));
    }
    add(out, content);
    return out;
}
} // namespace

Code root_integer(std::string_view name, std::uint32_t value) {
    VMM_ASSERT(name.size() == 4);
    Code code{name_op, root_char};
    add(code, name);
    add_dword(code, value);
    return code;
}

Code processor(unsigned index) {
    VMM_ASSERT(index < 4096);
    Code body;
    add(body, fmt::format("C{:03X}", index));
    body.push_back(name_op);
    add(body, "_HID");
    body.push_back(string_prefix);
    add(body, "ACPI0007");
    body.push_back(0);
    body.push_back(name_op);
    add(body, "_UID");
    add_dword(body, index);
    Code code{ext_op, device_op};
    add(code, with_package_length(body));
    return code;
}

Code system_bus_scope(Code const& content) {
    Code body{root_char};
    add(body, "_SB_");
    add(body, content);
    Code code{scope_op};
    add(code, with_package_length(body));
    return code;
}

} // namespace vmm::firmware::aml
