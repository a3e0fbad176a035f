#include "block/formats/qcow/sector_cipher.h"

#include "vmm/base/assert.h"
#include "vmm/base/endian.h"

#include <openssl/evp.h>

#include <algorithm>

namespace vmm::block::qcow {

namespace {
constexpr std::size_t sector_bytes = 512;
using Context = std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)>;
} // namespace

Result<std::unique_ptr<SectorCipher>> SectorCipher::create(ConstBytes passphrase) {
    auto cipher = std::make_unique<SectorCipher>();
    std::copy_n(passphrase.begin(), std::min(passphrase.size(), cipher->key_.size()), cipher->key_.begin());
    Context probe(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
    std::array<std::uint8_t, 16> iv{};
    if (!probe || EVP_CipherInit_ex(probe.get(), EVP_aes_128_cbc(), nullptr, cipher->key_.data(), iv.data(), 1) != 1)
        return error("AES-128-CBC is not available in this OpenSSL");
    return cipher;
}

void SectorCipher::run(bool encrypting, std::uint64_t offset, Bytes bytes) {
    VMM_ASSERT(offset % sector_bytes == 0 && bytes.size() % sector_bytes == 0);
    Context context(EVP_CIPHER_CTX_new(), EVP_CIPHER_CTX_free);
    VMM_ASSERT(context);
    bool good = EVP_CipherInit_ex(context.get(), EVP_aes_128_cbc(), nullptr, key_.data(), nullptr, encrypting) == 1;
    EVP_CIPHER_CTX_set_padding(context.get(), 0);
    for (std::size_t at = 0; good && at < bytes.size(); at += sector_bytes) {
        std::array<std::uint8_t, 16> iv{};
        store_le<std::uint64_t>(iv.data(), (offset + at) / sector_bytes);
        int written = 0;
        good = EVP_CipherInit_ex(context.get(), nullptr, nullptr, nullptr, iv.data(), encrypting) == 1 &&
               EVP_CipherUpdate(context.get(), bytes.data() + at, &written, bytes.data() + at, sector_bytes) == 1 &&
               written == int(sector_bytes);
    }
    VMM_ASSERT(good); // create() has seen the cipher work
}

} // namespace vmm::block::qcow
