#include "devices/pci/msi.h"

#include "vmm/base/checked.h"

#include <bit>

namespace vmm::dev {

namespace {
enum : std::uint8_t { capability_msi = 0x05, capability_msix = 0x11 };
// MSI, relative to the capability (figure 6-9, 64-bit with masks).
enum : unsigned {
    msi_control = 2,
    msi_address = 4,
    msi_address_high = 8,
    msi_data = 12,
    msi_mask = 16,
    msi_pending = 20
};
constexpr unsigned msi_size = 24;
enum : std::uint16_t { msi_enable = 1 << 0, msi_granted = 7 << 4, msi_64bit = 1 << 7, msi_maskable = 1 << 8 };
// MSI-X (section 6.8.2).
enum : unsigned { msix_control = 2, msix_table = 4, msix_pba = 8 };
constexpr unsigned msix_size = 12;
enum : std::uint16_t { msix_enable = 1 << 15, msix_function_mask = 1 << 14 };
enum : std::uint32_t { msix_vector_mask = 1 };
} // namespace

MsiCapability::MsiCapability(PciFunction& function, MsiTarget& sink, unsigned vectors)
    : function_(function), sink_(sink), at_(function.add_capability(capability_msi, msi_size)) {
    VMM_ASSERT(is_power_of_two(vectors) && vectors <= 32);
    auto capable = std::uint32_t(std::countr_zero(vectors)) << 1;
    function_.preset(at_ + msi_control, 2, capable | msi_64bit | msi_maskable);
    function_.allow(at_ + msi_control, 2, msi_enable | msi_granted);
    function_.allow(at_ + msi_address, 4, 0xfffffffc);
    function_.allow(at_ + msi_address_high, 4, 0xffffffff);
    function_.allow(at_ + msi_data, 2, 0xffff);
    function_.allow(at_ + msi_mask, 4, std::uint32_t((std::uint64_t(1) << vectors) - 1));
}

bool MsiCapability::enabled() const { return function_.read(at_ + msi_control, 2) & msi_enable; }

void MsiCapability::notify(unsigned vector) {
    VMM_ASSERT(vector < 32);
    if (!enabled()) return;
    std::uint32_t bit = std::uint32_t(1) << vector;
    if (function_.read(at_ + msi_mask, 4) & bit)
        function_.set(at_ + msi_pending, 4, function_.read(at_ + msi_pending, 4) | bit);
    else
        send(vector);
}

void MsiCapability::send(unsigned vector) {
    if (!function_.bus_master()) return; // a message is a write of the device's own
    std::uint32_t control = function_.read(at_ + msi_control, 2);
    unsigned granted = 1u << std::min<unsigned>((control & msi_granted) >> 4, 5);
    std::uint64_t address =
        function_.read(at_ + msi_address, 4) | std::uint64_t(function_.read(at_ + msi_address_high, 4)) << 32;
    std::uint32_t data = function_.read(at_ + msi_data, 2);
    sink_.deliver_msi(address, (data & ~(granted - 1)) | (vector & (granted - 1)));
}

void MsiCapability::config_written(unsigned offset, unsigned size) {
    if (offset >= at_ + msi_size || offset + size <= at_ || !enabled()) return;
    std::uint32_t ready = function_.read(at_ + msi_pending, 4) & ~function_.read(at_ + msi_mask, 4);
    if (!ready) return;
    function_.set(at_ + msi_pending, 4, function_.read(at_ + msi_pending, 4) & ~ready);
    for (; ready; ready &= ready - 1) send(unsigned(std::countr_zero(ready)));
}

MsixCapability::MsixCapability(PciFunction& function, MsiTarget& sink, Layout layout)
    : function_(function), sink_(sink), layout_(layout), at_(function.add_capability(capability_msix, msix_size)) {
    VMM_ASSERT(layout.vectors >= 1 && layout.vectors <= max_vectors && layout.bar < PciFunction::bar_count);
    VMM_ASSERT(layout.table_offset % 8 == 0 && layout.pending_offset % 8 == 0);
    function_.preset(at_ + msix_control, 2, layout.vectors - 1);
    function_.allow(at_ + msix_control, 2, msix_enable | msix_function_mask);
    function_.preset(at_ + msix_table, 4, layout.table_offset | layout.bar);
    function_.preset(at_ + msix_pba, 4, layout.pending_offset | layout.bar);
    reset();
}

PciBarWindow MsixCapability::table_window() {
    return {.offset = layout_.table_offset,
            .size = std::uint64_t(layout_.vectors) * entry_size,
            .backing = Backing::of_io(table_, {.min_impl = 4, .max_impl = 4})};
}

PciBarWindow MsixCapability::pending_window() {
    return {.offset = layout_.pending_offset,
            .size = state_.pending.size() * 8,
            .backing = Backing::of_io(pending_, {.min_impl = 4, .max_impl = 4})};
}

bool MsixCapability::enabled() const { return function_.read(at_ + msix_control, 2) & msix_enable; }

bool MsixCapability::masked(unsigned vector) const {
    return (function_.read(at_ + msix_control, 2) & msix_function_mask) ||
           (state_.table[vector * 4 + 3] & msix_vector_mask);
}

void MsixCapability::notify(unsigned vector) {
    VMM_ASSERT(vector < layout_.vectors);
    if (!enabled()) return;
    if (masked(vector)) {
        state_.pending[vector / 64] |= std::uint64_t(1) << (vector % 64);
        return;
    }
    if (!function_.bus_master()) return;
    std::uint32_t const* entry = &state_.table[vector * 4];
    sink_.deliver_msi(entry[0] | std::uint64_t(entry[1]) << 32, entry[2]);
}

void MsixCapability::deliver_unmasked() {
    if (!enabled()) return;
    for (unsigned word = 0; word < state_.pending.size(); ++word)
        for (std::uint64_t bits = state_.pending[word]; bits; bits &= bits - 1) {
            unsigned vector = word * 64 + unsigned(std::countr_zero(bits));
            if (masked(vector)) continue;
            state_.pending[word] &= ~(bits & -bits);
            notify(vector);
        }
}

void MsixCapability::config_written(unsigned offset, unsigned size) {
    if (offset < at_ + msix_size && offset + size > at_) deliver_unmasked();
}

std::uint64_t MsixCapability::Table::read(std::uint64_t offset, unsigned size) {
    if (size != 4 || offset / 4 >= owner.state_.table.size()) return 0;
    return owner.state_.table[offset / 4];
}

void MsixCapability::Table::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (size != 4 || offset / 4 >= owner.state_.table.size()) return;
    bool control = offset / 4 % 4 == 3;
    owner.state_.table[offset / 4] = std::uint32_t(control ? value & msix_vector_mask : value);
    if (control) owner.deliver_unmasked();
}

std::uint64_t MsixCapability::Pending::read(std::uint64_t offset, unsigned size) {
    if (size != 4 || offset / 8 >= owner.state_.pending.size()) return 0;
    return std::uint32_t(owner.state_.pending[offset / 8] >> (offset & 4 ? 32 : 0));
}

void MsixCapability::reset() {
    state_.table.assign(std::size_t(layout_.vectors) * 4, 0);
    for (unsigned vector = 0; vector < layout_.vectors; ++vector) state_.table[vector * 4 + 3] = msix_vector_mask;
    state_.pending.assign(div_ceil(layout_.vectors, 64u), 0);
}

Result<void> MsixCapability::check(State const& state) const {
    if (state.table.size() != state_.table.size() || state.pending.size() != state_.pending.size())
        return error("the saved MSI-X table is for another number of vectors");
    for (unsigned vector = layout_.vectors; vector < state.pending.size() * 64; ++vector)
        if (state.pending[vector / 64] >> (vector % 64) & 1) return error("a vector past the MSI-X table is pending");
    return {};
}

} // namespace vmm::dev
