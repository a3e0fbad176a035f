#include "firmware/smbios/smbios_tables.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <string_view>

namespace vmm::firmware {

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr GuestPhys entry_address = 0xf6000, structures_address = 0xf6020, structures_end = 0xfe000;
constexpr std::size_t max_string = 64;
constexpr std::uint16_t memory_array_handle = 0x1000;

// Collects structures: the formatted part, then its strings.
class Builder {
public:
    // Starts a structure; its length is filled in by end().
    void begin(std::uint8_t type, std::uint16_t handle) {
        start_ = bytes_.size();
        u8(type);
        u8(0);
        u16(handle);
    }
    void end() {
        std::size_t const size = bytes_.size() - start_;
        bytes_[start_ + 1] = std::uint8_t(size);
        for (std::string const& s : strings_) {
            bytes_.insert(bytes_.end(), s.begin(), s.end());
            u8(0);
        }
        if (strings_.empty()) u8(0);
        u8(0);
        // The specification counts the strings and their end as part of a structure's size.
        largest_ = std::max(largest_, bytes_.size() - start_);
        strings_.clear();
        ++count_;
    }
    void u8(std::uint8_t v) { bytes_.push_back(v); }
    void u16(std::uint16_t v) { u8(std::uint8_t(v)), u8(std::uint8_t(v >> 8)); }
    void u32(std::uint32_t v) { u16(std::uint16_t(v)), u16(std::uint16_t(v >> 16)); }
    void u64(std::uint64_t v) { u32(std::uint32_t(v)), u32(std::uint32_t(v >> 32)); }
    void zeros(std::size_t n) { bytes_.resize(bytes_.size() + n); }
    // A reference to `text`: its number, or 0 for an empty one, which must not be stored.
    void string(std::string text) {
        text.resize(std::min(text.find('\0'), std::min(text.size(), max_string)));
        if (text.empty()) return u8(0);
        strings_.push_back(std::move(text));
        u8(std::uint8_t(strings_.size()));
    }

    Bytes const& bytes() const { return bytes_; }
    unsigned count() const { return count_; }
    std::size_t largest() const { return largest_; }

private:
    Bytes bytes_;
    std::vector<std::string> strings_;
    std::size_t start_ = 0, largest_ = 0;
    unsigned count_ = 0;
};

void bios(Builder& b, SmbiosConfig const& config) { // type 0
    b.begin(0, 0);
    b.string(config.manufacturer);
    b.string("0.1");
    b.u16(0xe800); // segment of the BIOS's start
    b.string("01/01/2024");
    b.u8(0);                // ROM size: 64 KiB
    b.u64(1 << 3);          // characteristics not told
    b.u8(1);                // ACPI
    b.u8(1 << 2 | 1 << 4);  // targeted content distribution, a virtual machine
    b.u8(0), b.u8(1);       // release
    b.u8(0xff), b.u8(0xff); // no embedded controller
    b.end();
}

void system(Builder& b, SmbiosConfig const& config) { // type 1
    b.begin(1, 0x100);
    b.string(config.manufacturer);
    b.string(config.product);
    b.string(config.version);
    b.string(config.serial);
    // The first three fields are little-endian numbers since version 2.6.
    static constexpr std::uint8_t order[16] = {3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15};
    for (std::uint8_t i : order) b.u8(config.uuid[i]);
    b.u8(6);      // wake-up by the power switch
    b.string(""); // SKU
    b.string(""); // family
    b.end();
}

void chassis(Builder& b, SmbiosConfig const& config) { // type 3
    constexpr std::uint8_t other = 1, safe = 3, unknown = 2;
    b.begin(3, 0x300);
    b.string(config.manufacturer);
    b.u8(other);
    b.string(config.version);
    b.string("");
    b.string("");
    b.u8(safe), b.u8(safe), b.u8(safe); // boot-up, power supply, thermal
    b.u8(unknown);
    b.u32(0);
    b.u8(0);          // height
    b.u8(0);          // power cords
    b.u8(0), b.u8(0); // contained elements
    b.string("");
    b.end();
}

void processor(Builder& b, SmbiosConfig const& config, unsigned index) { // type 4
    constexpr std::uint8_t central = 3, other = 1, enabled = 0x41, unknown = 2;
    constexpr std::uint16_t no_cache = 0xffff;
    b.begin(4, std::uint16_t(0x400 + index));
    b.string(fmt::format("CPU {}", index));
    b.u8(central);
    b.u8(other); // family
    b.string(config.manufacturer);
    b.u64(0); // CPUID signature: the CPU says it better
    b.string(config.cpu_name);
    b.u8(0);            // voltage
    b.u16(0);           // external clock
    b.u16(0), b.u16(0); // speeds: unknown
    b.u8(enabled);
    b.u8(other); // upgrade
    b.u16(no_cache), b.u16(no_cache), b.u16(no_cache);
    b.string(""), b.string(""), b.string("");
    auto count = [](unsigned n) { return std::uint8_t(std::min(n, 255u)); };
    b.u8(count(config.cores)), b.u8(count(config.cores)); // present, enabled
    b.u8(count(config.cores * config.threads));
    b.u16(unknown);
    b.u16(other); // family 2
    b.end();
}

void memory(Builder& b, SmbiosConfig const& config) { // types 16, 17, 19
    constexpr std::uint64_t max_dimms = 128;          // keeps the structures well below the 64 KiB their length can say
    constexpr std::uint8_t on_board = 1, system_memory = 3, multi_bit_ecc = 6, dimm_form = 9, ram_type = 7;
    constexpr std::uint16_t no_error_info = 0xfffe, extended_size = 0x7fff;
    std::uint64_t const total = config.ram_below_4g + config.ram_above_4g;
    std::uint64_t dimm = 16 * GiB;
    while (div_ceil(total, dimm) > max_dimms) dimm *= 2;
    std::uint16_t const dimms = std::uint16_t(div_ceil(total, dimm));
    b.begin(16, memory_array_handle);
    b.u8(on_board), b.u8(system_memory), b.u8(multi_bit_ecc);
    bool const large = total / KiB >= 0x80000000;
    b.u32(large ? 0x80000000 : std::uint32_t(total / KiB));
    b.u16(no_error_info);
    b.u16(dimms);
    b.u64(large ? total : 0);
    b.end();

    for (std::uint16_t i = 0; i < dimms; ++i) {
        std::uint64_t const mib = std::min(dimm, total - i * dimm) / MiB;
        b.begin(17, std::uint16_t(0x1100 + i));
        b.u16(memory_array_handle);
        b.u16(no_error_info);
        b.u16(0xffff), b.u16(0xffff); // widths: unknown
        b.u16(mib < extended_size ? std::uint16_t(mib) : extended_size);
        b.u8(dimm_form);
        b.u8(0);
        b.string(fmt::format("DIMM {}", i));
        b.string("");
        b.u8(ram_type);
        b.u16(1 << 1); // detail: other
        b.u16(0);      // speed
        b.string(config.manufacturer);
        b.string(""), b.string(""), b.string("");
        b.u8(0); // rank
        b.u32(mib < extended_size ? 0 : std::uint32_t(mib));
        b.u16(0);                     // configured clock
        b.u16(0), b.u16(0), b.u16(0); // voltages
        b.end();
    }
    auto range = [&b, dimms](std::uint16_t handle, GuestPhys base, std::uint64_t size) {
        if (size == 0) return;
        b.begin(19, handle);
        bool const fits = (base + size) / KiB <= 0xffffffff;
        b.u32(fits ? std::uint32_t(base / KiB) : 0xffffffff);
        b.u32(fits ? std::uint32_t((base + size) / KiB - 1) : 0xffffffff);
        b.u16(memory_array_handle);
        b.u8(std::uint8_t(std::min<unsigned>(dimms, 0xff)));
        b.u64(fits ? 0 : base);
        b.u64(fits ? 0 : base + size - 1);
        b.end();
    };
    range(0x1300, 0, config.ram_below_4g);
    range(0x1301, 4 * GiB, config.ram_above_4g);
}

std::uint8_t negative_sum(std::span<std::uint8_t const> bytes) {
    return std::uint8_t(-std::accumulate(bytes.begin(), bytes.end(), 0u));
}

std::array<std::uint8_t, 31> entry_point(Builder const& b, GuestPhys structures_at) { // 5.2.1
    std::array<std::uint8_t, 31> e{};
    constexpr std::size_t intermediate = 0x10;
    auto text = [&e](std::size_t at, std::string_view s) { std::copy(s.begin(), s.end(), e.begin() + long(at)); };
    text(0, "_SM_");
    e[5] = std::uint8_t(e.size());
    e[6] = 2, e[7] = 8;
    store_le(&e[8], std::uint16_t(b.largest()));
    text(intermediate, "_DMI_");
    store_le(&e[0x16], std::uint16_t(b.bytes().size()));
    store_le(&e[0x18], std::uint32_t(structures_at));
    store_le(&e[0x1c], std::uint16_t(b.count()));
    e[0x1e] = 0x28;
    e[0x15] = negative_sum(std::span(e).subspan(intermediate));
    e[4] = negative_sum(e);
    return e;
}

} // namespace

SmbiosTables build_smbios_tables(SmbiosConfig const& config, GuestPhys structures_at) {
    VMM_ASSERT(config.sockets >= 1 && config.sockets <= 255);
    Builder b;
    bios(b, config);
    system(b, config);
    chassis(b, config);
    for (unsigned i = 0; i < config.sockets; ++i) processor(b, config, i);
    memory(b, config);
    b.begin(32, 0x2000); // system boot: no error
    b.zeros(6);
    b.u8(0);
    b.end();
    b.begin(127, 0x7f00);
    b.end();
    return {entry_point(b, structures_at), b.bytes()};
}

Result<std::optional<AddressRange>> place_smbios_tables(AddressSpace& memory, SmbiosConfig const& config,
                                                        std::uint64_t ram_end) {
    std::uint64_t const size = build_smbios_tables(config, 0).structures.size();
    bool const low = size <= structures_end - structures_address;
    std::uint64_t const rounded = align_up(size, page_size);
    if (!low && ram_end < rounded + 2 * MiB)
        return error("the SMBIOS tables ({} bytes) do not fit into guest RAM", size);
    GuestPhys const at = low ? structures_address : align_down(ram_end - rounded, page_size);
    SmbiosTables const tables = build_smbios_tables(config, at);
    if (!memory.write_bytes(at, tables.structures) || !memory.write_bytes(entry_address, tables.entry))
        return error("the SMBIOS tables ({} bytes at {:#x}) lie outside guest RAM", size, at);
    if (low) return std::optional<AddressRange>();
    return std::optional(AddressRange::of(at, ram_end - at));
}

} // namespace vmm::firmware
