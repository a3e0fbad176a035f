// The runtime checks itself: exceptions are caught with their codes, ring 3 is reached and left.
#include "runtime/guest.h"

CASE(an_exception_is_a_value) {
    Fault f = attempt([] { ASM("ud2"); });
    CHECK_EQ(f.vector, UD);
    f = attempt([] {});
    CHECK_EQ(f.vector, NONE);
}

CASE(a_function_runs_in_ring_3) {
    Fault f = run_user(
        [](word n) -> word {
            word cs;
            ASM("mov %%cs, %0" : "=r"(cs));
            return (cs & 3) + n;
        },
        40);
    CHECK_EQ(f.vector, USER_RETURN);
    CHECK_EQ(f.ax, 43);
    f = run_user([](word) -> word {
        ASM("cli");
        return 0;
    });
    CHECK_EQ(f.vector, GP);
    CHECK_EQ(f.error, 0);
    CHECK_EQ(f.cs, USER_CS);
}
