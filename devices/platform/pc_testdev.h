// PcTestdev: the device of x86 bare-metal test suites: latches, interrupt lines on demand, scratch MMIO.
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace vmm::dev {

// Five regions, each its own IoHandler so that the board maps them where the suites look. Device lock.
class PcTestdev final : public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t latch_port = 0xe0, flush_port = 0xe4, byte_port = 0xe8, irq_port = 0x2000;
    static constexpr std::uint64_t scratch_address = 0xff000000, scratch_size = 0x10000;
    static constexpr unsigned irq_lines = 24;
    struct State {
        std::array<std::uint8_t, 4> latch{};
        std::uint8_t byte = 0;
        std::uint32_t flushes = 0;
        std::array<bool, irq_lines> levels{};
        std::vector<std::uint8_t> scratch = std::vector<std::uint8_t>(scratch_size);
    };

    // `lines`: what 0x2000+N drives, at most irq_lines; a null entry is not connected.
    explicit PcTestdev(std::span<IrqLine* const> lines);

    // latch_port, 4 bytes: what was written, byte by byte, in 1, 2 or 4 byte accesses.
    IoHandler& latch() { return latch_; }
    // flush_port, 4 bytes: takes an address whose translation an emulator might have cached; nothing to do here. A read
    // tells how many writes there were, modulo 2^32.
    IoHandler& flush() { return flush_; }
    // byte_port, 1 byte.
    IoHandler& byte() { return byte_; }
    // irq_port, irq_lines bytes: 0 or 1 written at N is the level of line N; reads give it back.
    IoHandler& irqs() { return irqs_; }
    // scratch_address, scratch_size bytes of any access size and alignment (AccessRules.unaligned).
    IoHandler& scratch() { return scratch_; }
    static constexpr AccessRules latch_rules{.max_guest = 4, .max_impl = 1};
    static constexpr AccessRules flush_rules{.min_guest = 4, .max_guest = 4};
    static constexpr AccessRules byte_rules{.max_impl = 1};
    static constexpr AccessRules irq_rules{.max_impl = 1};
    static constexpr AccessRules scratch_rules{.max_impl = 1};

    // Writes to flush_port that came another way.
    void flushed(std::uint64_t times) { state_.flushes += std::uint32_t(times); }
    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

private:
    // Bytes in order.
    struct Bytes final : IoHandler {
        explicit Bytes(std::span<std::uint8_t> to) : bytes(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        std::span<std::uint8_t> bytes;
    };
    struct Flushes final : IoHandler {
        explicit Flushes(PcTestdev& to) : device(to) {}
        std::uint64_t read(std::uint64_t, unsigned size) override {
            return device.state_.flushes & (~std::uint32_t(0) >> (size < 4 ? 32 - 8 * size : 0));
        }
        void write(std::uint64_t, unsigned, std::uint64_t) override { device.flushed(1); }
        PcTestdev& device;
    };
    struct Irqs final : IoHandler {
        explicit Irqs(PcTestdev& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        PcTestdev& device;
    };
    void drive(unsigned line);

    std::array<IrqLine*, irq_lines> lines_{};
    State state_;
    Bytes latch_{state_.latch}, byte_{{&state_.byte, 1}}, scratch_{state_.scratch};
    Flushes flush_{*this};
    Irqs irqs_{*this};
};

} // namespace vmm::dev
