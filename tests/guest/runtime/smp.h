// The other CPUs of a 64-bit program: woken by INIT and SIPI, they wait for work.
#pragma once

#include "runtime/guest.h"

inline constexpr unsigned MAX_CPUS = 8;
// Wakes every other CPU once and returns how many CPUs run (with this one). Later calls only return the number.
unsigned start_cpus();
// Gives a function to CPU `cpu` (1..) and returns at once; finish() waits for it. The function runs with interrupts off
// and the boot CPU's descriptor tables.
void begin(unsigned cpu, void (*work)(word), word argument);
void finish(unsigned cpu);
// The local APIC id of a started CPU.
uint32_t apic_id_of(unsigned cpu);
