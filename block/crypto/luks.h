// LUKS version 1: the header of an encrypted disk, its key slots, and the cipher they unlock.
#pragma once
#include "block/crypto/aes.h"

#include <array>
#include <optional>
#include <string>
#include <vector>

namespace vmm::block {

inline constexpr std::size_t luks_header_bytes = 592; // without key material
inline constexpr std::size_t luks_slots = 8;
inline constexpr std::uint64_t max_luks_header_area = 64u << 20;
// Above these a file could keep us busy for minutes before a passphrase is even refused.
inline constexpr std::uint32_t max_luks_iterations = 50'000'000, max_luks_stripes = 10'000;

struct LuksSlot {
    bool active = false;
    std::uint32_t iterations = 0, stripes = 0;
    std::uint64_t key_offset = 0; // bytes from the header's beginning
    std::array<std::uint8_t, 32> salt{};
};

// The parsed header (LUKS On-Disk Format Specification 1.2.3).
struct LuksHeader {
    std::string cipher_name, cipher_mode, hash, uuid; // "aes", "xts-plain64", "sha256"
    AesSpec spec;
    std::uint64_t payload_offset = 0; // bytes
    std::uint32_t key_bytes = 0, digest_iterations = 0;
    std::array<std::uint8_t, 20> digest{};
    std::array<std::uint8_t, 32> digest_salt{};
    std::array<LuksSlot, luks_slots> slots;

    // QEMU's words for `info`: "aes-256", "xts", "plain64".
    std::string cipher_alg() const { return cipher_name + "-" + std::to_string(spec.key_bits); }
    std::string_view mode_name() const;
    std::string_view iv_name() const;
};

// `start`: at least luks_header_bytes. Every field is checked.
Result<LuksHeader> parse_luks_header(ConstBytes start);
// Tries every active slot; `area` is the header with its key material. Slow (that is the point): call on a worker.
// "Invalid password, cannot unlock any keyslot" (EPERM) when none fits.
Result<std::unique_ptr<SectorCipher>> unlock_luks(LuksHeader const& header, ConstBytes area, ConstBytes passphrase);

// What `amend` may do to key slots; nothing else of a LUKS disk can change.
struct LuksKeyChange {
    bool activate = false;             // put new_passphrase into a slot; else: erase slots
    std::optional<std::uint64_t> slot; // this one; else the first free one, or all that old_passphrase opens
    std::optional<std::vector<std::uint8_t>> new_passphrase, old_passphrase;
    std::optional<std::uint64_t> iter_time_ms;
    bool force = false; // overwrite an active slot; erase the last one
};
// Changes `header` and `area` (the header with its key material). `passphrase` opens some slot. Slow: call on a worker.
// Whoever writes the area to the file writes the key material before the header when a slot was activated, and the
// header first when slots were erased.
Result<void> change_luks_keys(LuksHeader& header, Bytes area, ConstBytes passphrase, LuksKeyChange const& change);

// QEMU's names and defaults of `-o encrypt.*`.
struct LuksCreateOptions {
    std::string cipher_alg = "aes-256", cipher_mode = "xts", ivgen_alg = "plain64", ivgen_hash_alg, hash_alg = "sha256";
    std::uint64_t iter_time_ms = 2000;
};
struct NewLuks {
    LuksHeader header;
    std::vector<std::uint8_t> area; // header and key material, header.payload_offset bytes
};
// A new random master key in slot 0. Slow: call on a worker.
Result<NewLuks> make_luks(LuksCreateOptions const& options, ConstBytes passphrase);
// Bytes the area will have.
Result<std::uint64_t> luks_area_bytes(LuksCreateOptions const& options);

} // namespace vmm::block
