// x87 instructions.
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

bool lift_x87(Lifter& l) { return l.undefined(); }

} // namespace vmm::tcg::x86
