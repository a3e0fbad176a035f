// Helpers of SSE and AVX: MXCSR, exceptions, masked moves and gathers.
#include "vmm/tcg/guest/x86/guest_memory.h"
#include "vmm/tcg/guest/x86/helpers.h"
#include "vmm/tcg/guest/x86/helpers_fp.h"
#include "vmm/tcg/guest/x86/mmu.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace vmm::tcg::x86 {

namespace {

constexpr std::uint32_t mxcsr_flags = 0x3f, mxcsr_writable = 0xffff;
constexpr unsigned mxcsr_mask_shift = 7;
// Found before the result is computed: an unmasked one keeps the others from being looked for.
constexpr std::uint32_t invalid_denormal_zero = 7, underflow = 0x10, underflow_mask = underflow << mxcsr_mask_shift;

// Whether an element of simd_result is a denormal.
bool has_tiny(X86Context const& c, std::uint64_t elements) {
    unsigned const bytes = elements & 15, count = unsigned(elements >> 4);
    unsigned const fraction_bits = bytes == 8 ? 52 : bytes == 4 ? 23 : 10;
    std::uint64_t const magnitudes = ~std::uint64_t(0) >> (65 - 8 * bytes);
    for (unsigned i = 0; i < count; ++i) {
        std::uint64_t element = 0;
        std::memcpy(&element, reinterpret_cast<char const*>(c.simd_result.data()) + i * bytes, bytes);
        element &= magnitudes;
        if (element && !(element >> fraction_bits)) return true;
    }
    return false;
}

// A gather met a fault after some elements: traps that wait come instead of it, as at an instruction's end, and it is
// entered again behind them (SDM, VPGATHERDD).
void suspend_gather(X86Context& c) {
    State& s = c.state;
    std::uint64_t hits = c.mmu->take_watch_hits();
    if (s.rflags & flag::tf) hits |= std::uint64_t(1) << 14;
    if (!hits) return;
    s.dr6 = (s.dr6 & ~std::uint64_t(15)) | hits;
    s.rflags |= flag::rf;
    c.engine.fault_pending = 0;
    c.raise(vec::db);
}

} // namespace

namespace helper {

std::uint64_t simd_check(X86Context& c, std::uint64_t before, std::uint64_t elements, std::uint64_t) {
    std::uint32_t& mxcsr = c.state.mxcsr;
    std::uint32_t raised = mxcsr & mxcsr_flags;
    // The operation ran with everything masked, where an exact tiny result raises nothing.
    if (elements && !(mxcsr & underflow_mask) && has_tiny(c, elements)) raised |= underflow;
    std::uint32_t unmasked = raised & ~(mxcsr >> mxcsr_mask_shift);
    if (unmasked & invalid_denormal_zero) raised &= invalid_denormal_zero;
    mxcsr = std::uint32_t(before) | raised;
    if (unmasked) c.raise(c.state.cr4 & cr4::osxmmexcpt ? vec::xm : vec::ud);
    return 0;
}

std::uint64_t ldmxcsr(X86Context& c, std::uint64_t value, std::uint64_t, std::uint64_t) {
    if (value & ~std::uint64_t(mxcsr_writable)) {
        c.raise(vec::gp, 0);
        return 0;
    }
    c.state.mxcsr = std::uint32_t(value);
    update_mode(c);
    return 0;
}

// MASKMOVQ, MASKMOVDQU, VMASKMOVPS/PD, VPMASKMOVD/Q: elements whose mask has its top bit set.
std::uint64_t vector_mask_move(X86Context& c, std::uint64_t a, std::uint64_t address, std::uint64_t) {
    unsigned element = 1u << (a >> masked_arg::element_shift & 3);
    unsigned bytes = a & masked_arg::wide_vector ? 32 : a & masked_arg::mmx ? 8 : 16;
    unsigned data_number = a >> masked_arg::data_shift & 15, mask_number = a >> masked_arg::mask_shift & 15;
    std::uint8_t data[32] = {}, mask[32];
    if (a & masked_arg::mmx) {
        std::memcpy(data, &c.state.x87.r[data_number & 7].mantissa, 8);
        std::memcpy(mask, &c.state.x87.r[mask_number & 7].mantissa, 8);
    } else {
        std::memcpy(mask, &c.state.ymm[mask_number], 32);
        if (a & masked_arg::store) std::memcpy(data, &c.state.ymm[data_number], 32);
    }
    // The byte-wise ones access all of their memory, whatever the mask says, upper half first.
    if (element == 1) {
        std::uint64_t const upper = c.state.code64() ? address + 8 : std::uint32_t(address + 8);
        if (bytes == 16 && !c.mmu->probe_write(upper, 8, c.mmu->view())) return 0;
        if (!c.mmu->probe_write(address, 8, c.mmu->view())) return 0;
    }
    for (unsigned i = 0; i < bytes; i += element) {
        if (!(mask[i + element - 1] & 0x80)) continue;
        // Without checking alignment, which these do not.
        bool ok = a & masked_arg::store ? c.mmu->write(address + i, element, data + i, c.mmu->view())
                                        : c.mmu->read(address + i, element, data + i, c.mmu->view());
        if (!ok) return 0;
    }
    if (!(a & masked_arg::store)) std::memcpy(&c.state.ymm[data_number], data, 32);
    return 0;
}

std::uint64_t load_unchecked(X86Context& c, std::uint64_t address, std::uint64_t, std::uint64_t) {
    std::uint64_t value = 0;
    c.mmu->read(address, sizeof value, &value, c.mmu->view());
    return value;
}

std::uint64_t store_unchecked(X86Context& c, std::uint64_t address, std::uint64_t value, std::uint64_t) {
    c.mmu->write(address, sizeof value, &value, c.mmu->view());
    return 0;
}

// VGATHERxxx, VPGATHERxx: elements whose mask has its top bit set; each done is taken out of the mask, so that a fault
// in between can be restarted.
std::uint64_t vector_gather(X86Context& c, std::uint64_t a, std::uint64_t base, std::uint64_t) {
    auto const segment = Seg(a >> masked_arg::segment_shift & 7);
    unsigned element = 1u << (a >> masked_arg::element_shift & 3), index_bytes = a & masked_arg::index64 ? 8 : 4;
    unsigned bytes = a & masked_arg::wide_vector ? 32 : 16, scale = a >> masked_arg::scale_shift & 3;
    unsigned count = bytes / std::max(element, index_bytes);
    auto* data = reinterpret_cast<std::uint8_t*>(&c.state.ymm[a >> masked_arg::data_shift & 15]);
    auto* mask = reinterpret_cast<std::uint8_t*>(&c.state.ymm[a >> masked_arg::mask_shift & 15]);
    auto const* index = reinterpret_cast<std::uint8_t const*>(&c.state.ymm[a >> masked_arg::index_shift & 15]);
    // The mask is first spread over whole elements of the vector's length, then cleared one by one.
    for (unsigned i = 0; i < bytes / element; i++) {
        std::uint8_t* m = mask + i * element;
        std::memset(m, m[element - 1] & 0x80 ? 0xff : 0, element);
    }
    std::memset(mask + bytes, 0, 32 - bytes);
    unsigned const used = count * element;
    bool progressed = false;
    for (unsigned i = 0; i < count; i++) {
        std::uint8_t* m = mask + i * element;
        if (!(m[element - 1] & 0x80)) continue;
        std::int64_t offset = 0;
        if (index_bytes == 8) {
            std::memcpy(&offset, index + 8 * i, 8);
        } else {
            std::int32_t narrow;
            std::memcpy(&narrow, index + 4 * i, 4);
            offset = narrow;
        }
        std::uint64_t va = base + (std::uint64_t(offset) << scale);
        if (a & masked_arg::address32) va = std::uint32_t(va);
        if (!segment_allows(c, segment, va, element, false)) {
            c.raise(segment == ss ? vec::ss : vec::gp, 0);
            if (progressed) suspend_gather(c);
            return 0;
        }
        va = segment_linear(c, segment, va);
        // Gathers do not check alignment.
        if (!c.mmu->read(va, element, data + i * element, c.mmu->view())) {
            if (progressed) suspend_gather(c);
            return 0;
        }
        progressed = true;
        std::memset(data + bytes, 0, 32 - bytes); // with the first element, as faults show on hardware
        std::memset(m, 0, element);
    }
    std::memset(mask, 0, 32);
    std::memset(data + used, 0, 32 - used);
    return 0;
}

} // namespace helper

} // namespace vmm::tcg::x86
