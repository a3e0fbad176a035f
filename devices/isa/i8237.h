// I8237Pair: the two DMA controllers of a PC and their page registers (Intel 8237A data sheet; PC/AT Technical
// Reference). The registers only: no device of ours requests a transfer yet.
#pragma once
#include "devices/core/roles.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>

namespace vmm::dev {

// Three regions. Device lock.
class I8237Pair final : public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t first_port = 0x00, first_size = 16;
    static constexpr std::uint64_t page_port = 0x81, page_size = 15;
    static constexpr std::uint64_t second_port = 0xc0, second_size = 32; // registers at even ports
    static constexpr AccessRules access_rules{.max_impl = 1};
    struct Channel {
        std::uint16_t base_address = 0, base_count = 0, current_address = 0, current_count = 0;
        std::uint8_t mode = 0;
    };
    struct Controller {
        std::array<Channel, 4> channels{};
        std::uint8_t command = 0, status = 0, request = 0;
        std::uint8_t mask = 0x0f;
        bool high_byte = false; // the first/last flip-flop
    };
    struct State {
        std::array<Controller, 2> controllers{};
        std::array<std::uint8_t, page_size> pages{};
    };

    IoHandler& first() { return first_; }
    IoHandler& second() { return second_; }
    IoHandler& pages() { return pages_; }

    void reset() override { state_ = State{}; }
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;
    State const& state() const { return state_; }

private:
    struct Registers final : IoHandler {
        Registers(I8237Pair& to, unsigned which) : device(to), index(which) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        Controller& controller() { return device.state_.controllers[index]; }
        I8237Pair& device;
        unsigned index;
    };
    struct Pages final : IoHandler {
        explicit Pages(I8237Pair& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        I8237Pair& device;
    };

    State state_;
    Registers first_{*this, 0}, second_{*this, 1};
    Pages pages_{*this};
};

} // namespace vmm::dev
