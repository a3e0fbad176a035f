// `--object secret,...` and `--object tls-creds-x509,...`: what images and connections need to be let in.
#pragma once
#include "block/tools/common/tool.h"

#include <string_view>

namespace vmm::block {

// Adds to the tool what `definition` ("secret,id=a,data=...|file=...[,format=raw|base64]",
// "tls-creds-KIND,id=a,dir=...", or the same as JSON) describes. Other object types are refused, except those that only
// schedule work (iothread, throttle-group), which are ignored.
Result<void> add_object(Tool& tool, std::string_view definition);

} // namespace vmm::block
