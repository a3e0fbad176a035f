// The table of every format and protocol we know.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

FormatTable default_formats();

} // namespace vmm::block
