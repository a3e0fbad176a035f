// MachineControl: what a monitor can do to and ask of a machine. Implemented by the board's side; the monitor knows
// nothing else of the machine.
#pragma once
#include "vmm/base/log.h"
#include "vmm/base/result.h"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace vmm::monitor {

enum class RunState : std::uint8_t {
    running,
    paused,         // by `stop`
    prelaunch,      // -S, never run yet
    restore_vm,     // a snapshot was loaded while stopped
    shutdown,       // the guest has powered off and -no-shutdown keeps us
    internal_error, // an engine gave up
    guest_panicked,
};

// Which address space a memory command reads.
enum class Space : std::uint8_t { physical, virtual_of_cpu };

// One `info` topic the machine provides.
struct InfoTopic {
    std::string name;      // "mtree", "pci", "irq"
    std::string help;      // "show memory tree"
    std::string arguments; // for `help info NAME`, "" or "[-f]"
    // The text, ending in a newline unless empty. `arguments` is the rest of the command line, without outer spaces. An
    // error is printed as "Error: …".
    std::function<Result<std::string>(std::string_view arguments)> text;
};

// All calls come on the loop's thread without the device lock; the implementation stops or signals vCPUs as it needs.
class MachineControl {
public:
    virtual ~MachineControl() = default;
    virtual void stop() = 0;
    virtual Result<void> cont() = 0;
    virtual RunState state() const = 0;
    virtual void reset() = 0;     // as the reset button
    virtual void powerdown() = 0; // presses the ACPI power button
    virtual void inject_nmi() = 0;
    virtual void quit() = 0; // ends the program with status 0 soon; returns

    virtual std::size_t cpu_count() const = 0;
    // `info registers`: the whole text of one CPU.
    virtual std::string registers_text(std::size_t cpu) const = 0;
    // $name in expressions ("eip", "rax", "pc"); nullopt: no such register.
    virtual std::optional<std::uint64_t> register_value(std::size_t cpu, std::string_view name) const = 0;
    // Reads guest memory without side effects of devices; false when any byte is not there.
    virtual bool read_memory(Space space, std::size_t cpu, std::uint64_t address, std::span<std::uint8_t> to) const = 0;
    // Disassembles one instruction at `address`: its text and length; nullopt: this build has no disassembler for it.
    struct Instruction {
        std::string text;
        std::size_t length = 1;
    };
    virtual std::optional<Instruction> disassemble(std::size_t cpu, std::uint64_t address,
                                                   std::span<std::uint8_t const> bytes) const = 0;
    // The topics of `info` beside those every monitor has itself (version, status, name, kvm, registers, cpus,
    // history).
    virtual std::vector<InfoTopic> const& info_topics() const = 0;
    virtual bool kvm_enabled() const = 0;
    // Host thread id of a vCPU for `info cpus`; 0: none.
    virtual int cpu_thread_id(std::size_t cpu) const = 0;
};

} // namespace vmm::monitor
