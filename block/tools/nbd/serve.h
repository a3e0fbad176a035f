// Serving an image: over sockets, or through the kernel's device.
#pragma once
#include "block/nbd/tls.h"
#include "block/tools/common/tool.h"
#include "block/tools/nbd/nbd_arguments.h"

namespace vmm::block {

class Daemon;

// Opens the image and serves it until the last client has left (or a signal comes). `daemon`: told when clients can
// connect; null when not forked. Returns the exit code.
int serve(Tool& tool, nbd::TlsStore const& tls, NbdArguments const& arguments, Daemon* daemon);

} // namespace vmm::block
