// What this build offers, for the command line and its help texts.
#pragma once
#include "vmm/options/offering.h"

namespace vmm {
Offering make_offering();
}
