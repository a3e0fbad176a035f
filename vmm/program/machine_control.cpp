#include "vmm/program/machine_control.h"

#include "vmm/cpu/x86/page_map.h"
#include "vmm/options/keyval.h"

#include <Zydis/Zydis.h>

#include <algorithm>
#include <cstring>

namespace vmm {

PcControl::PcControl(PcMachine& machine, Hooks hooks) : machine_(machine), hooks_(std::move(hooks)) {
    topics_.push_back({"jit",
                       "show dynamic compiler info (-p: and the N blocks executed most, with -accel tcg,profile=on)",
                       "[-p [N]]", [this](std::string_view arguments) { return jit_text(arguments); }});
    topics_.push_back({"mem", "show the active virtual memory mappings", "",
                       [this](std::string_view) -> Result<std::string> { return mappings_text(); }});
    topics_.push_back({"mtree", "show memory tree", "", [this](std::string_view) -> Result<std::string> {
                           return machine_.memory().describe() + machine_.io().describe();
                       }});
    topics_.push_back({"pci", "show PCI info", "",
                       [this](std::string_view) -> Result<std::string> { return machine_.pci().describe(); }});
}

void PcControl::stop() {
    if (state_ != monitor::RunState::running) return;
    machine_.stop();
    state_ = monitor::RunState::paused;
}

Result<void> PcControl::cont() {
    if (state_ == monitor::RunState::internal_error) return error("Resetting the Virtual Machine is required");
    if (state_ == monitor::RunState::shutdown) TRY(machine_.reset());
    machine_.start();
    state_ = monitor::RunState::running;
    return {};
}

std::string PcControl::registers_text(std::size_t cpu) const {
    return x86::describe(machine_.cpu_state(unsigned(cpu)));
}

std::optional<std::uint64_t> PcControl::register_value(std::size_t cpu, std::string_view name) const {
    static constexpr char const* names[] = {"ax", "cx", "dx", "bx", "sp", "bp", "si", "di"};
    x86::State s = machine_.cpu_state(unsigned(cpu));
    if (name == "pc" || name == "eip" || name == "rip") return s.rip;
    if (name == "eflags" || name == "rflags") return s.rflags;
    if (name == "cr0") return s.cr0;
    if (name == "cr2") return s.cr2;
    if (name == "cr3") return s.cr3;
    if (name == "cr4") return s.cr4;
    for (unsigned i = 0; i < 8; ++i)
        if (name.size() == 3 && name.substr(1) == names[i]) {
            if (name[0] == 'e') return std::uint32_t(s.gpr[i]);
            if (name[0] == 'r') return s.gpr[i];
        }
    for (unsigned i = 8; i < 16; ++i)
        if (name == fmt::format("r{}", i)) return s.gpr[i];
    return std::nullopt;
}

bool PcControl::read_memory(monitor::Space space, std::size_t cpu, std::uint64_t address,
                            std::span<std::uint8_t> to) const {
    while (!to.empty()) {
        std::uint64_t in_page = page_size - (address & (page_size - 1));
        std::uint64_t chunk = std::min<std::uint64_t>(in_page, to.size());
        std::optional<GuestPhys> physical = address;
        if (space == monitor::Space::virtual_of_cpu) physical = machine_.translate(unsigned(cpu), address);
        std::uint8_t const* from = physical ? machine_.memory().ram_pointer(*physical, chunk, false) : nullptr;
        if (!from) return false;
        std::memcpy(to.data(), from, chunk);
        to = to.subspan(chunk), address += chunk;
    }
    return true;
}

std::optional<monitor::MachineControl::Instruction> PcControl::disassemble(std::size_t cpu, std::uint64_t address,
                                                                           std::span<std::uint8_t const> bytes) const {
    x86::State s = machine_.cpu_state(unsigned(cpu));
    bool big = s.seg[x86::cs].attributes & x86::attr::db;
    ZydisMachineMode mode = s.code64() ? ZYDIS_MACHINE_MODE_LONG_64
                            : big      ? ZYDIS_MACHINE_MODE_LEGACY_32
                                       : ZYDIS_MACHINE_MODE_LEGACY_16;
    ZydisDisassembledInstruction instruction;
    if (!ZYAN_SUCCESS(ZydisDisassembleATT(mode, address, bytes.data(), bytes.size(), &instruction)))
        return Instruction{"(bad)", 1};
    return Instruction{instruction.text, instruction.info.length};
}

std::string PcControl::mappings_text() const {
    x86::State s = machine_.cpu_state(0);
    if (!(s.cr0 & x86::cr0::pg)) return "PG disabled\n";
    x86::PageMap map = x86::list_pages(s, [this](std::uint64_t at, unsigned size) -> std::optional<std::uint64_t> {
        std::uint64_t value = 0;
        std::uint8_t const* from = machine_.memory().ram_pointer(at, size, false);
        if (!from) return std::nullopt;
        std::memcpy(&value, from, size);
        return value;
    });
    std::string text;
    for (x86::MappedRange const& r : map.ranges)
        text += fmt::format("{:016x}-{:016x} {:016x} {}r{}\n", r.first, r.last + 1, r.last - r.first + 1,
                            r.user ? 'u' : '-', r.writable ? 'w' : '-');
    if (!map.whole) text += "... (the page tables are larger than this)\n";
    return text;
}

Result<std::string> PcControl::jit_text(std::string_view arguments) {
    unsigned hottest = 0;
    if (arguments.starts_with("-p")) {
        std::string_view number = arguments.substr(std::min(arguments.size(), arguments.find_first_not_of(' ', 2)));
        std::uint64_t n = number.empty() ? 20 : TRY(parse_number("N", number));
        hottest = unsigned(std::clamp<std::uint64_t>(n, 1, 10000));
    } else if (!arguments.empty()) {
        return error("info jit: extraneous characters at the end of line");
    }
    std::string text;
    for (unsigned n = 0; n < machine_.cpu_count(); ++n)
        text += fmt::format("{}CPU#{}\n", n ? "\n" : "", n) + TRY(machine_.translation_text(n, hottest));
    return text;
}

bool PcControl::kvm_enabled() const { return std::strcmp(machine_.vcpu(0).engine_name(), "kvm") == 0; }

} // namespace vmm
