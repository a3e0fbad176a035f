// The machine's SMBIOS structures (DMTF DSP0134, version 2.8).
#pragma once
#include "vmm/memory/address_space.h"

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace vmm::firmware {

// What the structures say. Strings longer than 64 characters (the specification's limit for old readers) are cut.
struct SmbiosConfig {
    unsigned sockets = 1;                             // 1..255
    unsigned cores = 1, threads = 1;                  // per socket, per core
    std::uint64_t ram_below_4g = 0, ram_above_4g = 0; // bytes
    std::string manufacturer = "vmm", product = "Standard PC (i440FX + PIIX, 1996)", version = "pc-i440fx";
    std::string serial{};
    std::string cpu_name{};              // the CPU model; empty = not told
    std::array<std::uint8_t, 16> uuid{}; // in RFC 4122 byte order; all zero = not present
};

struct SmbiosTables {
    std::array<std::uint8_t, 31> entry; // the "_SM_" entry point
    std::vector<std::uint8_t> structures;
};

// Builds types 0, 1, 3, 4 (one a socket), 16, 17 (one per 16 GiB), 19, 32 and 127. The structures will lie at
// `structures_at`, below 4 GiB.
SmbiosTables build_smbios_tables(SmbiosConfig const& config, GuestPhys structures_at);

// For booting without firmware: writes entry point and structures to the F segment, where guests search, or, when the
// structures are too long for it, to the top of the RAM that ends at `ram_end`; then returns that range, which must not
// be given to the guest as usable. Errors: no RAM there.
Result<std::optional<AddressRange>> place_smbios_tables(AddressSpace& memory, SmbiosConfig const& config,
                                                        std::uint64_t ram_end);

} // namespace vmm::firmware
