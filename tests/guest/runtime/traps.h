// Inside the runtime: what the assembly of traps.S shares with traps.cpp.
#pragma once

#include "runtime/guest.h"

extern "C" {
bool guarded_call(void (*body)(void*), void* argument);
void guarded_escape();
void enter_user(word function, word argument, word stack, word flags);
void user_return();
void handle_trap(Frame*);
extern char trap_stubs[];
extern word guarded_stack;
extern char stack_top[];
}
