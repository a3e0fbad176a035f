// LUKS as options say it and as `info` shows it; shared by qcow2's "encrypt.*" and the luks format.
#pragma once
#include "block/core/block_device.h"
#include "block/core/context.h"
#include "block/core/option_values.h"
#include "block/core/secret_store.h"
#include "block/core/value.h"
#include "block/crypto/luks.h"

namespace vmm::block {

// From "PREFIXcipher-alg", "PREFIXiter-time", ...
Result<LuksCreateOptions> luks_create_options(OptionValues const& options, std::string const& prefix);
// The options of `amend` that change key slots.
inline constexpr OptionSpec luks_amend_options[] = {
    {"state", OptionType::string, "Select new state of affected keyslots (active/inactive)"},
    {"new-secret", OptionType::string, "New secret to set in the matching keyslots. Empty string to erase"},
    {"old-secret", OptionType::string, "Select all keyslots that match this password"},
    {"keyslot", OptionType::number, "Select a single keyslot to modify explicitly"},
    {"iter-time", OptionType::number, "Time to spend in PBKDF in milliseconds"},
};
// From "PREFIXstate", "PREFIXnew-secret", ...
Result<LuksKeyChange> luks_key_change(OptionValues const& options, std::string const& prefix,
                                      SecretStore const* secrets);
// Reads the area of `header` at `offset` of `file`, changes keys in it (on the pool) and writes what changed, in the
// order in which a crash leaves a disk that opens.
Task<Result<void>> amend_luks(BlockContext& context, BlockDevice& file, std::uint64_t offset, LuksHeader& header,
                              std::vector<std::uint8_t> passphrase, LuksKeyChange change);
// The keys in QMP's order; `name_format` adds "format": "luks" where a format could also be another.
Value describe_luks(LuksHeader const& header, bool name_format);

} // namespace vmm::block
