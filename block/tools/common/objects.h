// `--object secret,...`: passphrases for encrypted images.
#pragma once
#include "block/core/secret_store.h"

#include <string_view>

namespace vmm::block {

// Adds what `definition` ("secret,id=a,data=...|file=...[,format=raw|base64]", or the same as JSON) describes. Other
// object types are refused, except those that only schedule work (iothread, throttle-group), which are ignored.
Result<void> add_object(SecretStore& secrets, std::string_view definition);

} // namespace vmm::block
