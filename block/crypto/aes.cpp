#include "block/crypto/aes.h"

#include "vmm/base/endian.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <vector>

namespace vmm::block {

namespace {

using Context = std::unique_ptr<EVP_CIPHER_CTX, void (*)(EVP_CIPHER_CTX*)>;

EVP_CIPHER const* cipher_of(unsigned bits, CipherMode mode) {
    switch (mode) {
    case CipherMode::ecb: return bits == 128 ? EVP_aes_128_ecb() : bits == 192 ? EVP_aes_192_ecb() : EVP_aes_256_ecb();
    case CipherMode::cbc: return bits == 128 ? EVP_aes_128_cbc() : bits == 192 ? EVP_aes_192_cbc() : EVP_aes_256_cbc();
    case CipherMode::ctr: return bits == 128 ? EVP_aes_128_ctr() : bits == 192 ? EVP_aes_192_ctr() : EVP_aes_256_ctr();
    case CipherMode::xts: return bits == 128 ? EVP_aes_128_xts() : bits == 256 ? EVP_aes_256_xts() : nullptr;
    }
    return nullptr;
}

class AesCipher final : public SectorCipher {
public:
    AesCipher(AesSpec spec, EVP_CIPHER const* cipher, ConstBytes key, EVP_CIPHER const* essiv, ConstBytes essiv_key)
        : spec_(std::move(spec)), cipher_(cipher), key_(key.begin(), key.end()), essiv_(essiv),
          essiv_key_(essiv_key.begin(), essiv_key.end()) {}
    bool encrypt(std::uint64_t sector, Bytes data) const override { return run(sector, data, 1); }
    bool decrypt(std::uint64_t sector, Bytes data) const override { return run(sector, data, 0); }

private:
    bool run(std::uint64_t sector, Bytes data, int encrypting) const {
        Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free), essiv(nullptr, EVP_CIPHER_CTX_free);
        if (!context || EVP_CipherInit_ex(context.get(), cipher_, nullptr, key_.data(), nullptr, encrypting) != 1)
            return false;
        EVP_CIPHER_CTX_set_padding(context.get(), 0);
        if (essiv_) {
            essiv.reset(EVP_CIPHER_CTX_new());
            if (!essiv || EVP_EncryptInit_ex(essiv.get(), essiv_, nullptr, essiv_key_.data(), nullptr) != 1)
                return false;
            EVP_CIPHER_CTX_set_padding(essiv.get(), 0);
        }
        for (std::size_t at = 0; at < data.size(); at += sector_bytes, ++sector) {
            std::array<std::uint8_t, 16> iv{};
            store_le(iv.data(), spec_.iv == IvGenerator::plain ? sector & 0xffffffffu : sector);
            if (spec_.iv == IvGenerator::none) iv = {};
            int n = 0;
            if (essiv && EVP_EncryptUpdate(essiv.get(), iv.data(), &n, iv.data(), int(iv.size())) != 1) return false;
            std::uint8_t* part = data.data() + at;
            int const length = int(std::min<std::size_t>(sector_bytes, data.size() - at));
            if (EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, iv.data(), encrypting) != 1) return false;
            if (EVP_CipherUpdate(context.get(), part, &n, part, length) != 1 || n != length) return false;
        }
        return true;
    }
    AesSpec spec_;
    EVP_CIPHER const* cipher_;
    std::vector<std::uint8_t> key_;
    EVP_CIPHER const* essiv_;
    std::vector<std::uint8_t> essiv_key_;
};

} // namespace

Result<std::unique_ptr<SectorCipher>> make_aes(AesSpec const& spec, ConstBytes key) {
    EVP_CIPHER const* cipher = cipher_of(spec.key_bits, spec.mode);
    if (!cipher || key.size() != spec.key_bytes())
        return error("Unsupported AES key of {} bytes for this mode", key.size());
    if (spec.iv != IvGenerator::essiv)
        return std::unique_ptr<SectorCipher>(std::make_unique<AesCipher>(spec, cipher, key, nullptr, ConstBytes()));
    EVP_MD const* hash = EVP_get_digestbyname(spec.essiv_hash.c_str());
    std::array<std::uint8_t, EVP_MAX_MD_SIZE> digest{};
    unsigned bytes = 0;
    if (!hash || EVP_Digest(key.data(), key.size(), digest.data(), &bytes, hash, nullptr) != 1)
        return error("Hash algorithm '{}' is not supported", spec.essiv_hash);
    EVP_CIPHER const* essiv =
        bytes == 16 || bytes == 24 || bytes == 32 ? cipher_of(bytes * 8, CipherMode::ecb) : nullptr;
    if (!essiv) return error("Hash algorithm '{}' does not give an AES key for ESSIV", spec.essiv_hash);
    return std::unique_ptr<SectorCipher>(
        std::make_unique<AesCipher>(spec, cipher, key, essiv, ConstBytes(digest.data(), bytes)));
}

Result<std::unique_ptr<SectorCipher>> make_qcow_aes(ConstBytes passphrase) {
    std::array<std::uint8_t, 16> key{};
    std::copy_n(passphrase.begin(), std::min(passphrase.size(), key.size()), key.begin());
    AesSpec spec{.key_bits = 128, .mode = CipherMode::cbc, .iv = IvGenerator::plain64};
    return make_aes(spec, key);
}

} // namespace vmm::block
