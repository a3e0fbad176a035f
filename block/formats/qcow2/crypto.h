// Encryption of qcow2 images: from header and options to the cipher of their data.
#pragma once
#include "block/core/context.h"
#include "block/core/open_options.h"
#include "block/core/value.h"
#include "block/crypto/luks.h"
#include "block/formats/qcow2/store.h"

#include <memory>
#include <optional>

namespace vmm::block::qcow2 {

struct Encryption {
    std::unique_ptr<SectorCipher> cipher; // null: not encrypted, or opened without a key
    std::optional<LuksHeader> luks;
    std::vector<std::uint8_t> passphrase; // that opened it; changing key slots asks for it
};

// Reads what the header points to and unlocks it with the secret that "encrypt.key-secret" names; without a secret only
// when no data will be read (options.no_io).
Task<Result<Encryption>> open_encryption(Store& store, OpenOptions const& options);
// Makes a new, empty image encrypted as the create options ("encrypt.format", ...) say; none: does nothing.
Task<Result<void>> add_encryption(Store& store, OptionValues const& options);
// The method those options ask for.
Result<CryptMethod> requested_encryption(OptionValues const& options);
// The "encrypt" part of `info`.
Value encryption_info(CryptMethod method, std::optional<LuksHeader> const& luks);

} // namespace vmm::block::qcow2
