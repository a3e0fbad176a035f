#include "firmware/loader/load_context.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <algorithm>

namespace vmm::firmware {

LoadContext::LoadContext(AddressSpace& to, BootPlatform const& of)
    : memory(to), platform(of), map(memory_map(of)), planner(map) {}

Result<void> LoadContext::write(GuestPhys at, std::span<std::uint8_t const> bytes, char const* what) {
    if (!memory.write_bytes(at, bytes))
        return error("{} ({} bytes at {:#x}) lies outside guest RAM", what, bytes.size(), at);
    return {};
}

Result<void> LoadContext::copy(GuestPhys at, FileSource const& file, std::uint64_t offset, std::uint64_t size,
                               char const* what) {
    static constexpr std::uint64_t chunk = 256 * KiB; // stays in the host's cache
    Bytes bytes(std::min(size, chunk));
    for (std::uint64_t done = 0; done < size; done += chunk) {
        auto const piece = std::span(bytes).first(std::min(size - done, chunk));
        TRY(file.read_at(offset + done, piece));
        TRY(write(at + done, piece, what));
    }
    return {};
}

Result<void> LoadContext::clear(GuestPhys at, std::uint64_t size, char const* what) {
    static constexpr std::uint64_t chunk = 64 * KiB;
    Bytes const zeros(std::min(size, chunk));
    for (std::uint64_t done = 0; done < size; done += chunk)
        TRY(write(at + done, std::span(zeros).first(std::min(size - done, chunk)), what));
    return {};
}

Result<GuestPhys> LoadContext::place(std::span<std::uint8_t const> bytes, std::uint64_t alignment, char const* what) {
    auto at = planner.take_highest(bytes.size(), alignment, ebda_base);
    if (!at) at = planner.take_lowest(bytes.size(), alignment, high_memory_base);
    if (!at)
        return error("guest RAM has no room for {} ({} bytes); give the guest more memory (-m)", what, bytes.size());
    TRY(write(*at, bytes, what));
    return *at;
}

Result<GuestPhys> LoadContext::place_string(std::string const& text, char const* what) {
    return place({reinterpret_cast<std::uint8_t const*>(text.c_str()), text.size() + 1}, 16, what);
}

Result<GuestPhys> LoadContext::place_initrd(FileSource const& initrd, GuestPhys end) {
    std::uint64_t const room = planner.largest_free(high_memory_base, end);
    auto const at = planner.take_highest(initrd.size(), page_size, end);
    if (!at || *at < high_memory_base)
        return error(
            "initrd '{}' has {} bytes but the guest has room for {} (RAM {} MiB, kernel and tables taken off); "
            "give the guest more memory (-m)",
            initrd.path(), initrd.size(), room, (platform.ram_below_4g + platform.ram_above_4g) / MiB);
    TRY(copy(*at, initrd, 0, initrd.size(), "the initrd"));
    return *at;
}

namespace {

// Descriptor types with S=1, present, accessed, DPL 0 (Intel SDM vol. 3, "Code- and Data-Segment Types").
constexpr std::uint16_t code_rx = 0x9b, data_rw = 0x93, busy_tss = 0x8b, ldt_type = 0x82;
constexpr std::uint16_t flag_long = 1 << 13, flag_big = 1 << 14, flag_granular = 1 << 15;
enum : std::uint64_t {
    cr0_pe = 1,
    cr0_et = 1 << 4,
    cr0_pg = std::uint64_t(1) << 31,
    cr4_pae = 1 << 5,
    efer_lme = 1 << 8,
    efer_lma = 1 << 10
};
enum : std::uint64_t { pte_present = 1, pte_write = 2, pte_large = 1 << 7 };
constexpr std::uint64_t stack_size = 4096;

BootSegment flat_segment(std::uint16_t selector, std::uint16_t attributes) {
    return {.selector = selector, .attributes = attributes, .limit = 0xffffffff, .base = 0};
}

// The 8-byte descriptor of a flat 4 GiB segment.
std::uint64_t flat_descriptor(std::uint16_t attributes) { return 0x000f00000000ffff | std::uint64_t(attributes) << 40; }

Result<void> add_flat_segments(LoadContext& context, BootEntry& entry, FlatSelectors selectors,
                               std::uint16_t code_flags) {
    std::uint16_t const code = code_rx | flag_granular | code_flags, data = data_rw | flag_granular | flag_big;
    entry.cs = flat_segment(selectors.code, code);
    entry.ds = entry.es = entry.fs = entry.gs = entry.ss = flat_segment(selectors.data, data);
    entry.tr = {.selector = 0, .attributes = busy_tss, .limit = 0x67, .base = 0};
    entry.ldt = {.selector = 0, .attributes = ldt_type, .limit = 0xffff, .base = 0};

    std::array<std::uint8_t, 0x20> gdt{};
    store_le(&gdt[selectors.code], flat_descriptor(code));
    store_le(&gdt[selectors.data], flat_descriptor(data));
    entry.gdt = {TRY(context.place(gdt, 16, "the boot GDT")), gdt.size() - 1};

    Bytes const stack(stack_size);
    entry.gpr[boot_rsp] = TRY(context.place(stack, 16, "the boot stack")) + stack_size;
    return {};
}

// PML4, one PDPT and four page directories mapping 0..4 GiB to itself.
Result<GuestPhys> place_identity_map(LoadContext& context) {
    constexpr std::uint64_t directories = 4, tables = 2 + directories, entries = 512;
    auto at = context.planner.take_highest(tables * page_size, page_size, ebda_base);
    if (!at) at = context.planner.take_lowest(tables * page_size, page_size, high_memory_base);
    if (!at) return error("guest RAM has no room for the boot page tables; give the guest more memory (-m)");

    Bytes bytes(tables * page_size);
    store_le(&bytes[0], *at + page_size + (pte_present | pte_write));
    for (std::uint64_t d = 0; d < directories; ++d) {
        store_le(&bytes[page_size + 8 * d], *at + (2 + d) * page_size + (pte_present | pte_write));
        for (std::uint64_t i = 0; i < entries; ++i)
            store_le(&bytes[(2 + d) * page_size + 8 * i],
                     (d * entries + i) * 2 * MiB + (pte_present | pte_write | pte_large));
    }
    TRY(context.write(*at, bytes, "the boot page tables"));
    return *at;
}

} // namespace

Result<BootEntry> enter_protected32(LoadContext& context, std::uint64_t entry, FlatSelectors selectors) {
    BootEntry state;
    state.mode = BootMode::protected32;
    state.rip = entry;
    state.cr0 = cr0_pe | cr0_et;
    TRY(add_flat_segments(context, state, selectors, flag_big));
    return state;
}

Result<BootEntry> enter_long64(LoadContext& context, std::uint64_t entry, FlatSelectors selectors) {
    BootEntry state;
    state.mode = BootMode::long64;
    state.rip = entry;
    state.cr0 = cr0_pe | cr0_et | cr0_pg;
    state.cr4 = cr4_pae;
    state.efer = efer_lme | efer_lma;
    TRY(add_flat_segments(context, state, selectors, flag_long));
    state.cr3 = TRY(place_identity_map(context));
    return state;
}

Result<void> write_bios_data(LoadContext& context) {
    Bytes bda(0x100);                                // at 0x400; offsets of the IBM PC BIOS data area
    std::uint16_t const equipment = 1 << 1 | 1 << 2; // x87, PS/2 mouse
    unsigned ports = 0;
    for (std::uint16_t base : context.platform.com_ports)
        if (base != 0) store_le(&bda[2 * ports++], base);
    store_le(&bda[0x10], std::uint16_t(equipment | ports << 9));
    store_le(&bda[0x0e], std::uint16_t(ebda_base >> 4));
    store_le(&bda[0x13], std::uint16_t(ebda_base / KiB));
    if (context.platform.vga_text) {
        bda[0x49] = 3;                               // mode
        store_le(&bda[0x4a], std::uint16_t(80));     // columns
        store_le(&bda[0x4c], std::uint16_t(0x1000)); // page size in bytes
        store_le(&bda[0x60], std::uint16_t(0x0607)); // cursor shape
        store_le(&bda[0x63], std::uint16_t(0x3d4));  // CRT controller
        bda[0x84] = 24;                              // rows - 1
        store_le(&bda[0x85], std::uint16_t(16));     // character height
        bda[0x87] = 0x60;                            // 256 KiB, EGA active
        bda[0x89] = 0x11;                            // VGA active, 400 lines
    }
    TRY(context.write(0x400, bda, "the BIOS data area"));
    std::uint8_t const ebda_kib[] = {1};
    return context.write(ebda_base, ebda_kib, "the EBDA");
}

} // namespace vmm::firmware
