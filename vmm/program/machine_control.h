// PcControl: the PC as the monitor drives it.
#pragma once
#include "monitor/machine_control.h"
#include "vmm/machine/pc/pc_machine.h"

#include <functional>

namespace vmm {

// On the loop's thread. `machine` outlives it.
class PcControl final : public monitor::MachineControl {
public:
    struct Hooks {
        std::function<void()> quit;
        std::function<void()> reset;
    };
    PcControl(PcMachine& machine, Hooks hooks);
    // One more topic of `info`, of the program's rather than the machine's.
    void add_topic(monitor::InfoTopic topic) { topics_.push_back(std::move(topic)); }

    void set_state(monitor::RunState state) { state_ = state; }

    void stop() override;
    Result<void> cont() override;
    monitor::RunState state() const override { return state_; }
    void reset() override { hooks_.reset(); }
    void powerdown() override { machine_.press_power_button(); }
    void inject_nmi() override { machine_.inject_nmi(); }
    void quit() override { hooks_.quit(); }
    std::size_t cpu_count() const override { return machine_.cpu_count(); }
    std::string registers_text(std::size_t cpu) const override;
    std::optional<std::uint64_t> register_value(std::size_t cpu, std::string_view name) const override;
    bool read_memory(monitor::Space space, std::size_t cpu, std::uint64_t address,
                     std::span<std::uint8_t> to) const override;
    std::optional<Instruction> disassemble(std::size_t cpu, std::uint64_t address,
                                           std::span<std::uint8_t const> bytes) const override;
    std::vector<monitor::InfoTopic> const& info_topics() const override { return topics_; }
    bool kvm_enabled() const override;
    int cpu_thread_id(std::size_t cpu) const override { return machine_.cpu_thread_id(unsigned(cpu)); }

private:
    std::string mappings_text() const;
    Result<std::string> jit_text(std::string_view arguments);

    PcMachine& machine_;
    Hooks hooks_;
    monitor::RunState state_ = monitor::RunState::prelaunch;
    std::vector<monitor::InfoTopic> topics_;
};

} // namespace vmm
