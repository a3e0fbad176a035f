// The console of a guest program, its command line, and the few functions a freestanding compiler expects.
#include "runtime/guest.h"

#include <stdarg.h>

static constexpr uint16_t debug_console = 0xe9, debug_exit = 0xf4;

extern "C" uint32_t boot_info;

extern "C" void* memset(void* to, int value, size_t n) {
    void* d = to;
    ASM("rep stosb" : "+D"(d), "+c"(n) : "a"(value) : "memory");
    return to;
}
extern "C" void* memcpy(void* to, void const* from, size_t n) {
    void* d = to;
    ASM("rep movsb" : "+D"(d), "+S"(from), "+c"(n)::"memory");
    return to;
}
extern "C" int memcmp(void const* a, void const* b, size_t n) {
    auto x = static_cast<uint8_t const*>(a), y = static_cast<uint8_t const*>(b);
    for (; n; --n, ++x, ++y)
        if (*x != *y) return *x < *y ? -1 : 1;
    return 0;
}

static void put(char c) { outb(debug_console, uint8_t(c)); }

static void put_number(unsigned long long value, unsigned base, bool negative) {
    char digits[24];
    int n = 0;
    uint32_t high = uint32_t(value >> 32), low = uint32_t(value);
    do { // division in 32-bit steps: a 32-bit build has no helper for the 64-bit one
        uint32_t quotient_high = high / base, remainder = high % base, quotient_low;
        ASM("divl %4" : "=a"(quotient_low), "=d"(remainder) : "a"(low), "d"(remainder), "r"(base) : "cc");
        digits[n++] = "0123456789abcdef"[remainder];
        high = quotient_high;
        low = quotient_low;
    } while (high | low);
    if (negative) put('-');
    while (n) put(digits[--n]);
}

void print(char const* format, ...) {
    va_list list;
    va_start(list, format);
    for (; *format; ++format) {
        if (*format != '%') {
            put(*format);
            continue;
        }
        int longs = 0;
        while (*++format == 'l') ++longs;
        switch (*format) {
        case 's':
            for (char const* s = va_arg(list, char const*); *s; ++s) put(*s);
            break;
        case 'c': put(char(va_arg(list, int))); break;
        case 'd': {
            long long v = longs == 2 ? va_arg(list, long long) : longs ? va_arg(list, long) : va_arg(list, int);
            put_number(v < 0 ? -(unsigned long long)(v) : (unsigned long long)(v), 10, v < 0);
            break;
        }
        case 'u':
        case 'x': {
            unsigned long long v = longs == 2 ? va_arg(list, unsigned long long)
                                   : longs    ? va_arg(list, unsigned long)
                                              : va_arg(list, unsigned);
            put_number(v, *format == 'x' ? 16 : 10, false);
            break;
        }
        default: put(*format);
        }
    }
    va_end(list);
}

void leave(uint8_t code) {
    outb(debug_exit, code);
    for (;;) ASM("cli; hlt");
}

char const* command_line() {
    auto info = reinterpret_cast<uint32_t const*>(word(boot_info));
    return info && (info[0] & 4) ? reinterpret_cast<char const*>(word(info[4])) : "";
}

unsigned long command_number(char const* name, unsigned long fallback) {
    for (char const* at = command_line(); *at; ++at) {
        char const *a = at, *n = name;
        while (*n && *a == *n) ++a, ++n;
        if (*n || *a != '=') continue;
        unsigned long value = 0;
        for (++a; *a >= '0' && *a <= '9'; ++a) value = value * 10 + unsigned(*a - '0');
        return value;
    }
    return fallback;
}
