// AES on disk sectors, through OpenSSL: the modes and IV generators that qcow, qcow2 and LUKS use.
#pragma once
#include "block/crypto/cipher.h"
#include "vmm/base/result.h"

#include <memory>
#include <string>
#include <string_view>

namespace vmm::block {

enum class CipherMode : std::uint8_t { ecb, cbc, xts, ctr };
enum class IvGenerator : std::uint8_t {
    none,
    plain,   // 32 bits of the sector number
    plain64, // the sector number
    essiv,   // the sector number encrypted with a hash of the key
};

struct AesSpec {
    unsigned key_bits = 256; // of AES itself; XTS takes two such keys
    CipherMode mode = CipherMode::xts;
    IvGenerator iv = IvGenerator::plain64;
    std::string essiv_hash = "sha256";
    std::size_t key_bytes() const { return std::size_t{key_bits} / 8 * (mode == CipherMode::xts ? 2 : 1); }
};

// `key` must have spec.key_bytes() bytes.
Result<std::unique_ptr<SectorCipher>> make_aes(AesSpec const& spec, ConstBytes key);
// The cipher of encrypted qcow and qcow2 (crypt_method 1): AES-128-CBC, the first 16 bytes of the passphrase as key.
Result<std::unique_ptr<SectorCipher>> make_qcow_aes(ConstBytes passphrase);

} // namespace vmm::block
