/* Preloaded into a program (LD_PRELOAD), writes down the KVM requests it makes, one "0xREQUEST" a line, in the file
 * KVM_REQUESTS, each once; and lets the FAIL_AT-th (from 1; default 1) request FAIL_REQUEST fail with ENOMEM. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { kvm_type = 0xae, requests = 256 };

int ioctl(int fd, unsigned long request, ...) {
    static int (*next)(int, unsigned long, void*);
    static int seen[requests];
    va_list list;
    va_start(list, request);
    void* argument = va_arg(list, void*);
    va_end(list);
    if (!next) next = (int (*)(int, unsigned long, void*))dlsym(RTLD_NEXT, "ioctl");
    if ((request >> 8 & 0xff) != kvm_type) return next(fd, request, argument);
    int count = __atomic_add_fetch(&seen[request & 0xff], 1, __ATOMIC_SEQ_CST);
    char const *log = getenv("KVM_REQUESTS"), *fail = getenv("FAIL_REQUEST"), *at = getenv("FAIL_AT");
    if (log && count == 1) {
        FILE* file = fopen(log, "a");
        if (file) fprintf(file, "%#lx\n", request), fclose(file);
    }
    if (fail && strtoul(fail, NULL, 16) == request && count == (at ? atoi(at) : 1)) return errno = ENOMEM, -1;
    return next(fd, request, argument);
}
