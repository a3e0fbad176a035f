// A triple fault resets the machine: with -no-reboot the process ends with status 0. The text comes first.
#include "runtime/guest.h"

CASE(triple_fault) {
    print("about to reset\n");
    lidt({0, 0});
    ASM("ud2");
}
