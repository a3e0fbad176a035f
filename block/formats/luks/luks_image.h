// The luks format: a raw disk behind a LUKS version 1 header, as cryptsetup makes them.
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

Format luks_format();

} // namespace vmm::block
