// The legacy encryption of qcow: AES-128 in CBC mode, each 512-byte sector on its own, its number as the start vector.
// Weak (the key is the passphrase itself): kept to read and write old images.
#pragma once
#include "block/core/io_spans.h"
#include "vmm/base/result.h"

#include <array>
#include <memory>

namespace vmm::block::qcow {

class SectorCipher {
public:
    // The first 16 bytes of the passphrase, filled up with zeroes.
    static Result<std::unique_ptr<SectorCipher>> create(ConstBytes passphrase);
    // In place; whole sectors, the first at `offset` of the disk.
    void encrypt(std::uint64_t offset, Bytes bytes) { run(true, offset, bytes); }
    void decrypt(std::uint64_t offset, Bytes bytes) { run(false, offset, bytes); }

private:
    void run(bool encrypting, std::uint64_t offset, Bytes bytes);
    std::array<std::uint8_t, 16> key_{};
};

} // namespace vmm::block::qcow
