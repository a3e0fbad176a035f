// LUKS as options say it and as `info` shows it; shared by qcow2's "encrypt.*" and the luks format.
#pragma once
#include "block/core/option_values.h"
#include "block/core/value.h"
#include "block/crypto/luks.h"

namespace vmm::block {

// From "PREFIXcipher-alg", "PREFIXiter-time", ...
Result<LuksCreateOptions> luks_create_options(OptionValues const& options, std::string const& prefix);
// The keys in QMP's order; `name_format` adds "format": "luks" where a format could also be another.
Value describe_luks(LuksHeader const& header, bool name_format);

} // namespace vmm::block
