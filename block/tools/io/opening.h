// How vmm-io's `open` and its command line say what to open.
#pragma once
#include "block/tools/io/command_options.h"

namespace vmm::block {

// -r -U -n -k -i -t -d -o and the operand.
Result<OpenOptions> open_options_from(Flags const& flags);
// `-s`: makes `options` open a temporary qcow2 overlay of what they named; the session deletes its file at the end.
Result<void> put_snapshot_on_top(IoSession& session, OpenOptions& options);

} // namespace vmm::block
