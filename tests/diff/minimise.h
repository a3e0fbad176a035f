// The automatic shrinking of a sequence that shows a difference.
#pragma once
#include "tests/diff/sample.h"

#include <functional>

namespace vmm::diff {

// Replaces instructions by NOPs and simplifies the start state as long as `differs` stays true of the result.
// Places do not move, so page crossings and jumps stay what they were.
Sequence minimise(Sequence sequence, std::function<bool(Sequence const&)> const& differs);

} // namespace vmm::diff
