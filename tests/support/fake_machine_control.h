// FakeMachineControl: a machine of two CPUs and 64 KiB of memory for monitor tests; records what it was told.
#pragma once
#include "monitor/machine_control.h"

#include <algorithm>

namespace vmm::test {

class FakeMachineControl final : public monitor::MachineControl {
public:
    std::vector<std::string> calls;
    monitor::RunState run_state = monitor::RunState::running;
    std::vector<std::uint8_t> memory = std::vector<std::uint8_t>(0x10000);
    std::vector<monitor::InfoTopic> topics = {
        {"irq", "show the interrupts statistics", "", [](std::string_view) { return std::string("irq 0: 1\n"); }},
        {"snapshots", "show the currently saved VM snapshots", "",
         [](std::string_view) -> Result<std::string> {
             return error("no block device can store vmstate for snapshot");
         }},
        {"mem", "show the active virtual memory mappings", "",
         [](std::string_view) { return std::string("PG disabled\n"); }},
        {"mtree", "show memory tree", "[-f]",
         [](std::string_view arguments) { return "tree " + std::string(arguments) + "\n"; }},
    };

    void stop() override { calls.push_back("stop"), run_state = monitor::RunState::paused; }
    Result<void> cont() override {
        calls.push_back("cont");
        if (run_state == monitor::RunState::shutdown) return error("Resetting the Virtual Machine is required");
        run_state = monitor::RunState::running;
        return {};
    }
    monitor::RunState state() const override { return run_state; }
    void reset() override { calls.push_back("reset"); }
    void powerdown() override { calls.push_back("powerdown"); }
    void inject_nmi() override { calls.push_back("nmi"); }
    void quit() override { calls.push_back("quit"); }
    std::size_t cpu_count() const override { return 2; }
    std::string registers_text(std::size_t cpu) const override { return "RAX=" + std::to_string(cpu) + "\n"; }
    std::optional<std::uint64_t> register_value(std::size_t, std::string_view name) const override {
        if (name == "pc") return 0xfff0;
        return std::nullopt;
    }
    bool read_memory(monitor::Space space, std::size_t, std::uint64_t address,
                     std::span<std::uint8_t> to) const override {
        if (space == monitor::Space::virtual_of_cpu) address -= 0x100000; // mapped at 1 MiB
        if (address > memory.size() || to.size() > memory.size() - address) return false;
        std::copy_n(memory.begin() + std::ptrdiff_t(address), to.size(), to.begin());
        return true;
    }
    std::optional<Instruction> disassemble(std::size_t, std::uint64_t, std::span<std::uint8_t const>) const override {
        return Instruction{"nop", 2};
    }
    std::vector<monitor::InfoTopic> const& info_topics() const override { return topics; }
    bool kvm_enabled() const override { return false; }
    int cpu_thread_id(std::size_t cpu) const override { return 100 + int(cpu); }
};

} // namespace vmm::test
