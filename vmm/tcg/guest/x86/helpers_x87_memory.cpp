// x87 instructions that store, and those on 80-bit, BCD, environment and state images (SDM vol. 1 8.1.10).
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/guest_copy.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/system.h"
#include "vmm/tcg/guest/x86/x87_unit.h"

#include <algorithm>
#include <cstring>

namespace vmm::tcg::x86 {

namespace {

constexpr unsigned register_bytes = 10, environment32_bytes = 28, environment16_bytes = 14;

// Whether the operand may lie at `va`; if not, #AC is recorded. An address that is not canonical faults as such.
bool check_alignment(X86Context& c, std::uint64_t va, unsigned alignment) {
    if (!(va & (alignment - 1)) || !c.mode().is(Mode::alignment_check) || !is_canonical(c.state, va)) return true;
    c.raise(vec::ac, 0);
    return false;
}

// --- the full tag word
unsigned tag_of(X87::Register const& r) {
    unsigned exponent = r.sign_exponent & 0x7fff;
    if (exponent == 0 && r.mantissa == 0) return 1;
    if (exponent == 0 || exponent == 0x7fff || !(r.mantissa >> 63)) return 2;
    return 0;
}
std::uint16_t full_tags(X87 const& x) {
    unsigned word = 0;
    for (unsigned i = 0; i < 8; i++) word |= (x.tags >> i & 1 ? tag_of(x.r[i]) : 3) << (2 * i);
    return std::uint16_t(word);
}
std::uint8_t abridged_tags(std::uint16_t word) {
    unsigned tags = 0;
    for (unsigned i = 0; i < 8; i++) tags |= unsigned((word >> (2 * i) & 3) != 3) << i;
    return std::uint8_t(tags);
}

// --- the environment: seven 16-bit or 32-bit words
using Words = std::uint32_t[7];

void environment_to_words(X86Context const& c, bool wide, Words& w) {
    X87 const& x = c.state.x87;
    bool linear = !c.mode().is(Mode::protected_mode); // real and virtual-8086: 20-bit or 32-bit linear addresses
    std::uint32_t fip = std::uint32_t(x.fip), fdp = std::uint32_t(x.fdp);
    std::uint32_t high = wide ? 0xffff0000 : 0;
    w[0] = x.fcw | high;
    w[1] = x.fsw | high;
    w[2] = full_tags(x) | high;
    if (linear) {
        fip += std::uint32_t(x.fcs) << 4;
        fdp += std::uint32_t(x.fds) << 4;
        w[3] = (fip & 0xffff) | high;
        w[4] = (fip >> 16 << 12) | x.fop;
        w[5] = (fdp & 0xffff) | high;
        w[6] = fdp >> 16 << 12;
    } else {
        w[3] = fip;
        w[4] = wide ? x.fcs | std::uint32_t(x.fop) << 16 : x.fcs;
        w[5] = fdp;
        w[6] = x.fds | high;
    }
}
void words_to_environment(X86Context& c, bool wide, Words const& w) {
    X87& x = c.state.x87;
    x.fcw = std::uint16_t((w[0] & fcw_writable) | fcw_fixed);
    x.fsw = std::uint16_t(w[1]);
    x.tags = abridged_tags(std::uint16_t(w[2]));
    if (!c.mode().is(Mode::protected_mode)) {
        x.fip = (w[3] & 0xffff) | (w[4] >> 12 << 16);
        x.fdp = (w[5] & 0xffff) | (w[6] >> 12 << 16);
        x.fop = w[4] & 0x7ff;
        x.fcs = x.fds = 0;
    } else {
        x.fip = w[3];
        x.fcs = std::uint16_t(w[4]);
        if (wide) x.fop = w[4] >> 16 & 0x7ff;
        x.fdp = w[5];
        x.fds = std::uint16_t(w[6]);
    }
    if (c.model->has(Feature::zero_fcs_fds)) x.fcs = x.fds = 0;
    update_summary(x);
}

bool store_environment(X86Context& c, std::uint64_t address, bool wide) {
    Words words;
    environment_to_words(c, wide, words);
    if (wide) return guest_store(c, address, words, environment32_bytes);
    std::uint16_t narrow[7];
    for (unsigned i = 0; i < 7; i++) narrow[i] = std::uint16_t(words[i]);
    return guest_store(c, address, narrow, environment16_bytes);
}
bool load_environment(X86Context& c, std::uint64_t address, bool wide, Words& words) {
    if (wide) return guest_load(c, address, words, environment32_bytes);
    std::uint16_t narrow[7];
    if (!guest_load(c, address, narrow, environment16_bytes)) return false;
    for (unsigned i = 0; i < 7; i++) words[i] = narrow[i];
    return true;
}
unsigned environment_bytes(bool wide) { return wide ? environment32_bytes : environment16_bytes; }

// Environments and states begin with a 32-bit or a 16-bit word.
unsigned first_word(unsigned image_bytes) {
    return image_bytes == environment32_bytes || image_bytes == environment32_bytes + 8 * register_bytes ? 4 : 2;
}

// Faults where hardware does: at the first word, which #AC asks about, then at the last.
bool readable(X86Context& c, std::uint64_t address, unsigned bytes) {
    std::uint8_t read[4];
    return check_alignment(c, address, first_word(bytes)) && guest_load(c, address, read, first_word(bytes)) &&
           guest_load(c, address + bytes - 1, read, 1);
}

void fldenv(X86Context& c, std::uint64_t address, bool wide) {
    Words words;
    if (!readable(c, address, environment_bytes(wide))) return;
    if (load_environment(c, address, wide, words)) words_to_environment(c, wide, words);
}
// Nothing is stored unless all of it can be.
bool writable(X86Context& c, std::uint64_t address, unsigned bytes) {
    View const view = c.mmu->view();
    return check_alignment(c, address, first_word(bytes)) && c.mmu->probe_write(address, first_word(bytes), view) &&
           c.mmu->probe_write(address + bytes - 1, 1, view);
}
void fnstenv(X86Context& c, std::uint64_t address, bool wide) {
    if (!writable(c, address, environment_bytes(wide))) return;
    if (!store_environment(c, address, wide)) return;
    c.state.x87.fcw |= fsw::exceptions;
    update_summary(c.state.x87);
}
void fnsave(X86Context& c, std::uint64_t address, bool wide) {
    std::uint8_t image[8 * register_bytes];
    for (unsigned i = 0; i < 8; i++) {
        auto const& r = st(c.state.x87, i);
        std::memcpy(image + register_bytes * i, &r.mantissa, 8);
        std::memcpy(image + register_bytes * i + 8, &r.sign_exponent, 2);
    }
    if (!writable(c, address, environment_bytes(wide) + sizeof image)) return;
    if (!store_environment(c, address, wide)) return;
    if (guest_store(c, address + environment_bytes(wide), image, sizeof image)) x87_reset(c);
}
void frstor(X86Context& c, std::uint64_t address, bool wide) {
    Words words;
    std::uint8_t image[8 * register_bytes];
    if (!readable(c, address, environment_bytes(wide) + sizeof image)) return;
    if (!load_environment(c, address, wide, words)) return;
    if (!guest_load(c, address + environment_bytes(wide), image, sizeof image)) return;
    words_to_environment(c, wide, words);
    for (unsigned i = 0; i < 8; i++) {
        auto& r = st(c.state.x87, i);
        std::memcpy(&r.mantissa, image + register_bytes * i, 8);
        std::memcpy(&r.sign_exponent, image + register_bytes * i + 8, 2);
    }
}

// --- stores and 80-bit operands
void load_extended(X86Context& c, X87Unit& u, std::uint64_t address) {
    X87::Register r;
    std::uint8_t image[register_bytes];
    if (!check_alignment(c, address, 8) || !guest_load(c, address, image, sizeof image)) return u.abandon();
    std::memcpy(&r.mantissa, image, 8);
    std::memcpy(&r.sign_exponent, image + 8, 2);
    u.push_raw(r);
}
// As hardware does, which shows where a page ends between the two.
bool store_ten_bytes(X86Context& c, std::uint64_t address, std::uint8_t const* image) {
    return guest_store(c, address, image, 8) && guest_store(c, address + 8, image + 8, register_bytes - 8);
}
void store_extended(X86Context& c, X87Unit& u, std::uint64_t address) {
    X87::Register r = X87Unit::indefinite;
    if (!u.empty(0))
        r = u.read(0), u.clear_c1();
    else if (!u.underflow())
        return;
    std::uint8_t image[register_bytes];
    std::memcpy(image, &r.mantissa, 8);
    std::memcpy(image + 8, &r.sign_exponent, 2);
    if (!check_alignment(c, address, 8) || !store_ten_bytes(c, address, image)) return u.abandon();
    u.pop(1);
}
void load_bcd(X86Context& c, X87Unit& u, std::uint64_t address) {
    if (!check_alignment(c, address, 8) || !guest_load(c, address, u.memory(), register_bytes)) return u.abandon();
    u.load(X87Op::ld_bcd);
}
void store_converted(X86Context& c, X87Unit& u, std::uint64_t address, X87Op op, unsigned bytes, bool pops) {
    if (!u.convert(op)) return;
    if (!check_alignment(c, address, std::min(bytes, 8u))) return u.abandon();
    bool const stored =
        bytes == register_bytes ? store_ten_bytes(c, address, u.memory()) : guest_store(c, address, u.memory(), bytes);
    if (!stored) return u.abandon();
    if (pops) u.pop(1);
}

struct Store {
    X87Op op;
    unsigned bytes;
    bool pops;
};
// By first byte (D8-DF) and reg; what is not a store has 0 bytes.
Store store_of(unsigned group, unsigned reg) {
    switch (group << 3 | reg) {
    case 1 << 3 | 2: return {X87Op::st_f32, 4, false};
    case 1 << 3 | 3: return {X87Op::st_f32, 4, true};
    case 3 << 3 | 1: return {X87Op::stt_i32, 4, true};
    case 3 << 3 | 2: return {X87Op::st_i32, 4, false};
    case 3 << 3 | 3: return {X87Op::st_i32, 4, true};
    case 5 << 3 | 1: return {X87Op::stt_i64, 8, true};
    case 5 << 3 | 2: return {X87Op::st_f64, 8, false};
    case 5 << 3 | 3: return {X87Op::st_f64, 8, true};
    case 7 << 3 | 1: return {X87Op::stt_i16, 2, true};
    case 7 << 3 | 2: return {X87Op::st_i16, 2, false};
    case 7 << 3 | 3: return {X87Op::st_i16, 2, true};
    case 7 << 3 | 6: return {X87Op::st_bcd, 10, true};
    case 7 << 3 | 7: return {X87Op::st_i64, 8, true};
    default: return {X87Op::ldz, 0, false};
    }
}

} // namespace

namespace helper {

std::uint64_t x87_memory(X86Context& c, std::uint64_t a, std::uint64_t address, std::uint64_t offset) {
    unsigned group = a >> 8 & 7, reg = a >> 3 & 7;
    bool wide = a >> x87_arg::wide_shift & 1;
    // FNSTENV and FNSAVE do not wait; the control instructions leave the pointers alone.
    if (group == 1 && reg == 6) return fnstenv(c, address, wide), 0;
    if (group == 5 && reg == 6) return fnsave(c, address, wide), 0;
    if (!x87_check_pending(c)) return 0;
    if (group == 1 && reg == 4) return fldenv(c, address, wide), 0;
    if (group == 5 && reg == 4) return frstor(c, address, wide), 0;
    X87Unit u(c, a);
    u.set_data_pointer(offset);
    if (group == 3 && reg == 5)
        load_extended(c, u, address);
    else if (group == 3 && reg == 7)
        store_extended(c, u, address);
    else if (group == 7 && reg == 4)
        load_bcd(c, u, address);
    else if (Store s = store_of(group, reg); s.bytes)
        store_converted(c, u, address, s.op, s.bytes, s.pops);
    return 0;
}

} // namespace helper

} // namespace vmm::tcg::x86
