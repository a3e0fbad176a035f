// The blkdebug protocol: injects errors into the file under an image and stops requests at chosen points (tests,
// vmm-io).
#pragma once
#include "block/core/factory.h"

namespace vmm::block {

// "blkdebug:CONFIG:FILE" (CONFIG may be empty), or driver options config= and image.filename=. CONFIG has sections
// [inject-error] (event, errno, once, immediately, sector, state, iotype) and [set-state] (event, state, new_state).
// A rule arms when its event happens in its state (0: any); an armed rule fails the next request that matches.
Protocol blkdebug_protocol();

} // namespace vmm::block
