// Ports for people who debug guests: the debug console (0xe9), the exit port, and the POST code port (0x80).
#pragma once
#include "devices/core/char_port.h"
#include "devices/core/roles.h"
#include "vmm/memory/io_handler.h"

#include <functional>

namespace vmm::dev {

// One byte: what is written goes to the sink; a read gives 0xe9, by which guests detect the port. Has no state.
// Bytes that do not fit the sink are lost: the port has no way to make the guest wait. Device lock.
class DebugConsole final : public IoHandler {
public:
    static constexpr std::uint64_t default_port = 0xe9, region_size = 1;
    static constexpr AccessRules access_rules{.max_impl = 1};
    static constexpr std::uint8_t readback = 0xe9;
    explicit DebugConsole(CharSink& output) : output_(output) {}

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

private:
    CharSink& output_;
};

// `-device isa-debug-exit,iobase=..,iosize=..`: writing V to its ports ends the program with status V << 1 | 1, so
// that a guest can never report the status 0 of a clean end. Reads give 0. The callback is called with the device lock
// held and must return (it asks the machine to end). No state.
class IsaDebugExit final : public IoHandler {
public:
    static constexpr std::uint64_t default_port = 0x501, default_size = 2, max_size = 4;
    explicit IsaDebugExit(std::function<void(int status)> exit) : exit_(std::move(exit)) {}

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

private:
    std::function<void(int)> exit_;
};

// Port 0x80: firmware's progress codes; also where software writes to wait a microsecond. Remembers the last byte.
// Device lock.
class PostPort final : public IoHandler, public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t default_port = 0x80, region_size = 1;
    static constexpr AccessRules access_rules{.max_impl = 1};
    struct State {
        std::uint8_t code = 0;
    };

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
    void reset() override { state_ = State{}; }
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    State state_;
};

} // namespace vmm::dev
