#include "devices/pci/i440fx.h"

#include "devices/pci/bus.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <utility>

namespace vmm::dev {

namespace {
// 82441FX data sheet, section 3.2.
enum : unsigned { reg_pmccfg = 0x50, reg_deturbo = 0x52, reg_dbc = 0x53, reg_axc = 0x54, reg_drt = 0x55 };
enum : unsigned { reg_dramc = 0x57, reg_dramt = 0x58, reg_pam0 = 0x59, reg_drb0 = 0x60, reg_fdhc = 0x68 };
enum : unsigned { reg_mtt = 0x70, reg_clt = 0x71, reg_smram = 0x72, reg_errcmd = 0x90, reg_errsts = 0x91 };
enum : unsigned { reg_trc = 0x93 };
enum : std::uint8_t { pam_re = 1, pam_we = 2, pam_both = 3 };
enum : std::uint8_t {
    smram_base = 0x02,
    smram_enable = 0x08,
    smram_lock = 0x10,
    smram_closed = 0x20,
    smram_open = 0x40
};
constexpr std::uint8_t smram_writable = smram_enable | smram_lock | smram_closed | smram_open;

constexpr GuestPhys vga_base = 0xa0000, rom_end = 0x100000;
constexpr std::uint64_t vga_size = 0x20000, rom_max = 0x20000;

struct PamField {
    GuestPhys base;
    std::uint64_t size;
    unsigned reg, shift;
};
// Table of section 3.2.15: PAM0's upper half is 64 KiB, the others 16 KiB a half from 0xc0000 on.
constexpr PamField pam_field(unsigned index) {
    if (index == 0) return {0xf0000, 0x10000, reg_pam0, 4};
    unsigned half = index - 1;
    return {0xc0000 + half * 0x4000u, 0x4000, reg_pam0 + 1 + half / 2, half % 2 * 4};
}
} // namespace

template <class V> void fields(V& v, I440fx::State& s) { v.field("pci", s.pci); }

I440fx::I440fx(Needs needs)
    : needs_(std::move(needs)),
      function_({.vendor = 0x8086, .device = 0x1237, .class_code = 0x060000, .revision = 0x02}) {
    PciFunction& f = function_;
    f.preset(pci_reg::command, 2, 0x0006);
    f.allow(pci_reg::command, 2, 0x0100); // memory and bus master are hard-wired on, I/O is off
    f.preset(pci_reg::status, 2, 0x0280);
    f.preset(reg_dramc, 1, 0x01);
    f.preset(reg_dramt, 1, 0x10);
    f.preset(reg_mtt, 1, 0x20);
    f.preset(reg_clt, 1, 0x10);
    f.preset(reg_smram, 1, smram_base);
    for (unsigned i = 0; i < 8; ++i) f.preset(reg_drb0 + i, 1, 0x01);
    struct Register {
        unsigned offset, size;
    };
    constexpr Register stored[] = {{reg_pmccfg, 2}, {reg_deturbo, 1}, {reg_dbc, 1},    {reg_axc, 1},
                                   {reg_drt, 2},    {reg_dramc, 1},   {reg_dramt, 1},  {reg_fdhc, 1},
                                   {reg_mtt, 1},    {reg_clt, 1},     {reg_errcmd, 1}, {reg_trc, 1}};
    for (Register const& r : stored) f.allow(r.offset, r.size, 0xffff);
    for (unsigned i = 0; i < 8; ++i) f.allow(reg_drb0 + i, 1, 0xff);
    for (unsigned i = 0; i < 7; ++i) f.allow(reg_pam0 + i, 1, 0x77);
    f.allow(reg_smram, 1, smram_writable);
    f.allow_clear(reg_errsts, 1, 0x11);
    f.on_write([this](unsigned offset, unsigned size) {
        if (offset <= reg_smram && offset + size > reg_pam0) apply();
    });
    vga_hole_ = needs_.memory.map({.name = "pci-vga-hole",
                                   .range = AddressRange::of(vga_base, vga_size),
                                   .backing = Backing::of_io(nothing_),
                                   .priority = pci_priority::hole});
    apply();
}

I440fx::~I440fx() {
    AddressSpace::Batch batch(needs_.memory);
    for (unsigned i = 0; i < segment_count; ++i) apply_segment(i, pam_both);
    if (open_smram_) needs_.memory.unmap(*open_smram_);
    needs_.memory.unmap(vga_hole_);
}

void I440fx::apply() {
    // Only a change is worth a new view of memory.
    std::array<std::uint8_t, segment_count> modes;
    bool changed = false;
    for (unsigned i = 0; i < segment_count; ++i) {
        PamField field = pam_field(i);
        modes[i] = std::uint8_t(function_.read(field.reg, 1) >> field.shift & pam_both);
        changed |= modes[i] != segments_[i].mode;
    }
    if (changed) {
        AddressSpace::Batch batch(needs_.memory);
        for (unsigned i = 0; i < segment_count; ++i)
            if (modes[i] != segments_[i].mode) apply_segment(i, modes[i]);
    }
    apply_smram();
}

void I440fx::apply_segment(unsigned index, std::uint8_t mode) {
    Segment& segment = segments_[index];
    PamField field = pam_field(index);
    for (MappingId id : segment.hiding) needs_.memory.unmap(id);
    segment.hiding.clear();
    segment.mode = mode;
    auto hide = [&](GuestPhys base, std::uint64_t size, Backing backing, MapFor use, char const* name) {
        segment.hiding.push_back(needs_.memory.map({.name = name,
                                                    .range = AddressRange::of(base, size),
                                                    .backing = backing,
                                                    .priority = pci_priority::hole,
                                                    .use = use}));
    };
    if (!(mode & pam_we)) hide(field.base, field.size, Backing::of_io(nothing_), MapFor::writes, "pam-pci");
    if (mode & pam_re) return;
    hide(field.base, field.size, Backing::of_io(nothing_), MapFor::reads, "pam-pci");
    if (!needs_.firmware) return;
    std::uint64_t shown = std::min(needs_.firmware->size(), rom_max);
    GuestPhys rom_base = rom_end - shown, first = std::max(field.base, rom_base);
    if (first >= field.base + field.size) return;
    std::uint64_t offset = needs_.firmware->size() - shown + (first - rom_base);
    hide(first, field.base + field.size - first, Backing::of_ram(*needs_.firmware, offset), MapFor::reads, "pam-rom");
}

void I440fx::apply_smram() {
    auto smram = std::uint8_t(function_.read(reg_smram, 1));
    // The lock closes the window and makes the register read-only until reset.
    function_.allow(reg_smram, 1, smram & smram_lock ? 0 : smram_writable);
    if (smram & smram_lock) function_.set(reg_smram, 1, smram &= std::uint8_t(~smram_open));
    if (smram_was_enabled_ != smram_enabled()) {
        smram_was_enabled_ = smram_enabled();
        if (needs_.on_smram_enable) needs_.on_smram_enable();
    }
    bool open = (smram & smram_open) && (smram & smram_enable) && needs_.ram.size() >= vga_base + vga_size;
    if (open == open_smram_.has_value()) return;
    if (open_smram_) {
        needs_.memory.unmap(*open_smram_);
        open_smram_.reset();
        return;
    }
    open_smram_ = needs_.memory.map({.name = "smram-open",
                                     .range = AddressRange::of(vga_base, vga_size),
                                     .backing = Backing::of_ram(needs_.ram, vga_base),
                                     .priority = pci_priority::smram_open});
}

void I440fx::enable_shadow_ram() {
    AddressSpace::Batch batch(needs_.memory); // one change of the map, not thirteen
    function_.write(reg_pam0, 1, pam_both << 4);
    for (unsigned i = 1; i < 7; ++i) function_.write(reg_pam0 + i, 1, pam_both << 4 | pam_both);
}

bool I440fx::smram_enabled() const { return function_.read(reg_smram, 1) & smram_enable; }

void I440fx::save(StateWriter& to) const { save_state(to, State{function_.state()}); }

Result<void> I440fx::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    TRY(function_.check(loaded.pci));
    function_.restore(loaded.pci);
    return {};
}

} // namespace vmm::dev
