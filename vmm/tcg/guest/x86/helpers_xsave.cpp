// FXSAVE, FXRSTOR and the XSAVE family: images of the x87, SSE, AVX and PKRU state (SDM vol. 1 10.5 and 13).
#include "vmm/cpu/x86/cpu_model.h"
#include "vmm/tcg/guest/x86/fpu_image.h"
#include "vmm/tcg/guest/x86/guest_copy.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/mmu.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace vmm::tcg::x86 {

namespace {

// Offsets in the legacy area.
constexpr unsigned fcw_at = 0, fsw_at = 2, tags_at = 4, fop_at = 6, fip_at = 8, fdp_at = 16, mxcsr_at = 24, st_at = 32,
                   xmm_at = 160, x87_header_bytes = 24, x87_bytes = 128, legacy_bytes = 512;
constexpr std::uint32_t mxcsr_initial = 0x1f80, mxcsr_mask = 0xffff;
// The XSAVE header behind it.
constexpr unsigned header_at = 512, header_bytes = 64, extended_at = 576;
constexpr std::uint64_t compacted_bit = std::uint64_t(1) << 63;
constexpr unsigned avx_component = 2, last_component = 9;

template <class T> void put(std::uint8_t* p, T v) { std::memcpy(p, &v, sizeof v); }
template <class T> T get(std::uint8_t const* p) {
    T v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

bool misaligned(X86Context& c, std::uint64_t address, unsigned alignment) {
    if (!(address & (alignment - 1))) return false;
    c.raise(vec::gp, 0);
    return true;
}
unsigned vector_count(X86Context const& c) { return c.mode().is64() ? 16 : 8; }

// --- components to and from bytes
void x87_to_bytes(X87 const& x, bool wide, std::uint8_t* p) {
    std::memset(p, 0, x87_header_bytes);
    put(p + fcw_at, x.fcw);
    put(p + fsw_at, x.fsw);
    put(p + tags_at, x.tags);
    put(p + fop_at, x.fop);
    if (wide) {
        put(p + fip_at, x.fip);
        put(p + fdp_at, x.fdp);
    } else {
        put(p + fip_at, std::uint32_t(x.fip));
        put(p + fip_at + 4, x.fcs);
        put(p + fdp_at, std::uint32_t(x.fdp));
        put(p + fdp_at + 4, x.fds);
    }
    std::memset(p + st_at, 0, x87_bytes);
    for (unsigned i = 0; i < 8; i++) {
        X87::Register const& r = st(x, i);
        put(p + st_at + 16 * i, r.mantissa);
        put(p + st_at + 16 * i + 8, r.sign_exponent);
    }
}
// FIP has as many bits as linear addresses can have; FDP has all.
std::uint64_t instruction_pointer(std::uint64_t v) { return std::uint64_t(std::int64_t(v << 7) >> 7); }

void x87_from_bytes(X87& x, bool wide, bool selectors, std::uint8_t const* p) {
    x.fcw = std::uint16_t((get<std::uint16_t>(p + fcw_at) & fcw_writable) | fcw_fixed);
    x.fsw = get<std::uint16_t>(p + fsw_at);
    x.tags = p[tags_at];
    x.fop = get<std::uint16_t>(p + fop_at) & 0x7ff;
    if (wide) {
        x.fip = instruction_pointer(get<std::uint64_t>(p + fip_at));
        x.fdp = get<std::uint64_t>(p + fdp_at);
        x.fcs = x.fds = 0;
    } else {
        x.fip = get<std::uint32_t>(p + fip_at);
        x.fcs = get<std::uint16_t>(p + fip_at + 4);
        x.fdp = get<std::uint32_t>(p + fdp_at);
        x.fds = get<std::uint16_t>(p + fdp_at + 4);
    }
    if (!selectors) x.fcs = x.fds = 0;
    update_summary(x);
    for (unsigned i = 0; i < 8; i++)
        st(x, i) = {.mantissa = get<std::uint64_t>(p + st_at + 16 * i),
                    .sign_exponent = get<std::uint16_t>(p + st_at + 16 * i + 8)};
}
void x87_initialize(X87& x) { x = X87{}; }

bool store_x87(X86Context& c, std::uint64_t address, bool wide) {
    std::uint8_t image[xmm_at];
    x87_to_bytes(c.state.x87, wide, image);
    return guest_store(c, address, image, x87_header_bytes) &&
           guest_store(c, address + st_at, image + st_at, x87_bytes);
}
bool store_mxcsr(X86Context& c, std::uint64_t address) {
    std::uint32_t words[2] = {c.state.mxcsr, mxcsr_mask};
    return guest_store(c, address + mxcsr_at, words, sizeof words);
}
bool store_xmm(X86Context& c, std::uint64_t address) {
    std::uint8_t image[256];
    unsigned n = vector_count(c);
    for (unsigned i = 0; i < n; i++) std::memcpy(image + 16 * i, c.state.ymm[i].data(), 16);
    return guest_store(c, address + xmm_at, image, 16 * n);
}
void xmm_from_bytes(X86Context& c, std::uint8_t const* p) {
    for (unsigned i = 0; i < vector_count(c); i++) std::memcpy(c.state.ymm[i].data(), p + 16 * i, 16);
}

// --- XSAVE components
std::uint64_t requested(X86Context const& c) {
    std::uint64_t mask = (c.state.gpr[rdx] << 32) | std::uint32_t(c.state.gpr[rax]);
    return mask & c.state.xcr0;
}
bool half_in_use(X86Context const& c, unsigned half) {
    for (Ymm const& y : c.state.ymm)
        if (y[2 * half] | y[2 * half + 1]) return true;
    return false;
}
std::uint64_t in_use(X86Context const& c) {
    X87 const& x = c.state.x87;
    bool x87 = x.fcw != 0x37f || x.fsw || x.tags || x.fop || x.fip || x.fdp || x.fcs || x.fds;
    for (auto const& r : x.r) x87 |= r.mantissa || r.sign_exponent;
    return (x87 ? xcr0::x87 : 0) | (half_in_use(c, 0) ? xcr0::sse : 0) | (half_in_use(c, 1) ? xcr0::avx : 0) |
           (c.state.pkru ? xcr0::pkru : 0);
}
// Where component `index` (2 and up) lies, in an area whose compacted layout has `layout` (0: standard form).
std::uint64_t component_offset(unsigned index, std::uint64_t layout) {
    std::uint32_t size = 0;
    if (!(layout & compacted_bit)) return vmm::x86::xsave_offset(index, size);
    std::uint64_t offset = extended_at;
    for (unsigned i = avx_component; i < index; i++) {
        if (!(layout >> i & 1)) continue;
        vmm::x86::xsave_offset(i, size);
        offset += size;
    }
    return offset;
}
bool store_extended(X86Context& c, std::uint64_t address, std::uint64_t components, std::uint64_t layout) {
    if (components & xcr0::avx) {
        std::uint8_t image[256];
        unsigned n = vector_count(c);
        for (unsigned i = 0; i < n; i++) std::memcpy(image + 16 * i, &c.state.ymm[i][2], 16);
        if (!guest_store(c, address + component_offset(avx_component, layout), image, 16 * n)) return false;
    }
    if (components & xcr0::pkru) {
        std::uint64_t value = c.state.pkru;
        if (!guest_store(c, address + component_offset(last_component, layout), &value, sizeof value)) return false;
    }
    return true;
}

struct Header {
    std::uint64_t state = 0, compaction = 0;
    std::array<std::uint64_t, 6> reserved{};
};
static_assert(sizeof(Header) == header_bytes);

// SDM vol. 1 13.8: what XRSTOR refuses.
bool header_valid(X86Context const& c, Header const& h) {
    if (!(h.compaction & compacted_bit)) return h.compaction == 0 && h.reserved[0] == 0 && !(h.state & ~c.state.xcr0);
    if (!c.model->has(vmm::x86::Feature::xsavec)) return false;
    std::uint64_t layout = h.compaction & ~compacted_bit;
    return !(layout & ~c.state.xcr0) && !(h.state & ~layout) &&
           std::all_of(h.reserved.begin(), h.reserved.end(), [](std::uint64_t v) { return v == 0; });
}

// Everything XRSTOR reads, before anything is changed.
struct Image {
    std::uint8_t legacy[legacy_bytes], ymm_high[256];
    std::uint64_t pkru = 0;
};
bool read_image(X86Context& c, std::uint64_t address, Header const& h, std::uint64_t load, Image& image) {
    if (!guest_load(c, address, image.legacy, xmm_at)) return false;
    if (load & xcr0::sse && !guest_load(c, address + xmm_at, image.legacy + xmm_at, 16 * vector_count(c))) return false;
    if (load & xcr0::avx &&
        !guest_load(c, address + component_offset(avx_component, h.compaction), image.ymm_high, 16 * vector_count(c)))
        return false;
    return !(load & xcr0::pkru) ||
           guest_load(c, address + component_offset(last_component, h.compaction), &image.pkru, sizeof image.pkru);
}

void restore_components(X86Context& c, Image const& image, std::uint64_t wanted, std::uint64_t load, bool wide) {
    unsigned n = vector_count(c);
    if (wanted & xcr0::x87) {
        if (load & xcr0::x87)
            x87_from_bytes(c.state.x87, wide, !c.model->has(Feature::zero_fcs_fds), image.legacy);
        else
            x87_initialize(c.state.x87);
    }
    if (wanted & xcr0::sse) {
        if (load & xcr0::sse)
            xmm_from_bytes(c, image.legacy + xmm_at);
        else
            for (unsigned i = 0; i < n; i++) c.state.ymm[i][0] = c.state.ymm[i][1] = 0;
    }
    if (wanted & xcr0::avx)
        for (unsigned i = 0; i < n; i++) {
            if (load & xcr0::avx)
                std::memcpy(&c.state.ymm[i][2], image.ymm_high + 16 * i, 16);
            else
                c.state.ymm[i][2] = c.state.ymm[i][3] = 0;
        }
    if (wanted & xcr0::pkru) c.state.pkru = load & xcr0::pkru ? std::uint32_t(image.pkru) : 0;
}

} // namespace

namespace helper {

std::uint64_t fxsave(X86Context& c, std::uint64_t address, std::uint64_t wide, std::uint64_t) {
    if (misaligned(c, address, 16)) return 0;
    // Nothing is stored unless all of it can be; the end is looked at first, as faults show on hardware.
    if (!c.mmu->probe_write(address + legacy_bytes - 1, 1, c.mmu->view())) return 0;
    if (!c.mmu->probe_write(address, 1, c.mmu->view())) return 0;
    if (!store_x87(c, address, wide) || !store_mxcsr(c, address)) return 0;
    store_xmm(c, address);
    return 0;
}

std::uint64_t fxrstor(X86Context& c, std::uint64_t address, std::uint64_t wide, std::uint64_t) {
    if (misaligned(c, address, 16)) return 0;
    std::uint8_t image[legacy_bytes];
    if (!guest_load(c, address + legacy_bytes - 1, image, 1)) return 0; // the end first, as faults show on hardware
    if (!guest_load(c, address, image, xmm_at + 16 * vector_count(c))) return 0;
    std::uint32_t mxcsr = get<std::uint32_t>(image + mxcsr_at);
    if (mxcsr & ~mxcsr_mask) {
        c.raise(vec::gp, 0);
        return 0;
    }
    x87_from_bytes(c.state.x87, wide, !c.model->has(Feature::zero_fcs_fds), image);
    c.state.mxcsr = mxcsr;
    xmm_from_bytes(c, image + xmm_at);
    update_mode(c);
    return 0;
}

std::uint64_t xsave(X86Context& c, std::uint64_t address, std::uint64_t how, std::uint64_t) {
    if (!(c.state.cr4 & cr4::osxsave)) {
        c.raise(vec::ud);
        return 0;
    }
    if (misaligned(c, address, 64)) return 0;
    auto form = XsaveForm(how & 3);
    std::uint64_t wanted = requested(c), used = in_use(c), layout = 0;
    Header header;
    if (form == XsaveForm::compacted) {
        if (c.state.mxcsr != mxcsr_initial) used |= xcr0::sse;
        header.state = wanted & used;
        header.compaction = layout = wanted | compacted_bit;
    } else {
        if (!guest_load(c, address + header_at, &header, sizeof header.state)) return 0;
        header.state = (header.state & ~wanted) | (wanted & used);
    }
    std::uint64_t stored = form == XsaveForm::save ? wanted : wanted & used;
    if (stored & xcr0::x87 && !store_x87(c, address, how & xsave_wide)) return 0;
    // MXCSR goes with SSE, and with AVX outside the compacted form, in use or not.
    bool mxcsr = form == XsaveForm::compacted ? stored & xcr0::sse : wanted & (xcr0::sse | xcr0::avx);
    if (mxcsr && !store_mxcsr(c, address)) return 0;
    if (stored & xcr0::sse && !store_xmm(c, address)) return 0;
    if (!store_extended(c, address, stored, layout)) return 0;
    guest_store(c, address + header_at, &header, form == XsaveForm::compacted ? 16 : 8);
    return 0;
}

std::uint64_t xrstor(X86Context& c, std::uint64_t address, std::uint64_t how, std::uint64_t) {
    if (!(c.state.cr4 & cr4::osxsave)) {
        c.raise(vec::ud);
        return 0;
    }
    if (misaligned(c, address, 64)) return 0;
    Header header;
    if (!guest_load(c, address + header_at, &header, sizeof header)) return 0;
    if (!header_valid(c, header)) {
        c.raise(vec::gp, 0);
        return 0;
    }
    std::uint64_t wanted = requested(c), load = wanted & header.state;
    Image image;
    if (!read_image(c, address, header, load, image)) return 0;
    std::uint32_t mxcsr = get<std::uint32_t>(image.legacy + mxcsr_at);
    bool compacted = header.compaction & compacted_bit;
    bool loads_mxcsr = compacted ? load & xcr0::sse : wanted & (xcr0::sse | xcr0::avx);
    if (loads_mxcsr && mxcsr & ~mxcsr_mask) {
        c.raise(vec::gp, 0);
        return 0;
    }
    restore_components(c, image, wanted, load, how & xsave_wide);
    if (loads_mxcsr)
        c.state.mxcsr = mxcsr;
    else if (wanted & xcr0::sse)
        c.state.mxcsr = mxcsr_initial;
    update_mode(c);
    return 0;
}

} // namespace helper

} // namespace vmm::tcg::x86
