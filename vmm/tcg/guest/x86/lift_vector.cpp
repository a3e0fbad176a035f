// MMX, SSE and AVX instructions.
#include "vmm/tcg/guest/x86/lifter.h"

namespace vmm::tcg::x86 {

bool lift_vector(Lifter& l) { return l.undefined(); }

} // namespace vmm::tcg::x86
