// Uart16550: the 16550A UART of a PC's COM port (National PC16550D data sheet; section numbers refer to it).
#pragma once
#include "devices/core/char_port.h"
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "vmm/base/timer_queue.h"
#include "vmm/memory/io_handler.h"

#include <array>
#include <cstdint>
#include <functional>

namespace vmm::dev {

// Eight byte-wide registers. Transmission takes no time: THR goes to the sink at once, and waits in the transmitter
// FIFO only while the sink is full. Reception is as fast as the guest reads. The interrupt output is not gated by MCR's
// OUT2, though PC boards wire it so: guests written on PC emulators (xv6 is one) never set it. Device lock for every
// member.
class Uart16550 final : public IoHandler, public CharReceiver, public Resettable, public Snapshottable {
public:
    static constexpr unsigned fifo_size = 16;
    static constexpr std::uint64_t region_size = 8;
    // How to map it: registers are bytes.
    static constexpr AccessRules access_rules{.max_impl = 1};

    // A first-in first-out queue of at most 16 characters. Its own aggregate so that it saves as one.
    struct Fifo {
        std::array<std::uint8_t, fifo_size> data{};
        std::array<std::uint8_t, fifo_size> errors{}; // LSR's PE, FE and BI of each character
        std::uint8_t count = 0;                       // data[0] is the oldest
    };
    struct State {
        std::uint8_t ier = 0, fcr = 0, lcr = 0, mcr = 0, scratch = 0;
        std::uint8_t lsr_errors = 0; // OE, PE, FE, BI as LSR shows them until it is read
        std::uint8_t msr = 0;        // the delta bits and the inputs
        std::uint16_t divisor = 12;  // 9600 baud, as a PC's firmware leaves it
        Fifo receiver{}, transmitter{};
        bool thre_pending = false;    // the THR-empty interrupt is waiting to be read from IIR
        bool timeout_pending = false; // the character-timeout interrupt
        std::int64_t timeout_at = -1; // virtual time in ns when it becomes pending, or -1
    };
    struct Needs {
        IrqLine& irq;
        TimerQueue& timers;
        CharSink& output;
    };
    explicit Uart16550(Needs needs);

    std::uint64_t read(std::uint64_t offset, unsigned size) override;
    void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;

    // In loopback mode nothing is received: the line is disconnected, and the host keeps its characters for later.
    std::size_t can_receive() const override;
    void receive(std::span<std::uint8_t const> bytes) override;
    void receive_break() override;
    void set_on_can_receive(std::function<void()> callback) override;

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;

    State const& state() const { return state_; }

private:
    bool fifo_enabled() const;
    bool loopback() const;
    unsigned receiver_depth() const;
    std::uint8_t interrupt_identification() const;
    std::uint8_t line_status() const;
    std::uint8_t modem_inputs() const;
    Nanoseconds timeout_interval() const;

    std::uint8_t read_rbr();
    std::uint8_t read_iir();
    std::uint8_t read_lsr();
    std::uint8_t read_msr();
    void write_thr(std::uint8_t value);
    void write_ier(std::uint8_t value);
    void write_fcr(std::uint8_t value);
    void write_lcr(std::uint8_t value);
    void write_mcr(std::uint8_t value);

    void push_received(std::uint8_t value, std::uint8_t errors);
    void clear_receiver();
    void clear_transmitter();
    void drain();
    void update_modem_inputs();
    void restart_timeout();
    void update_irq();

    Needs needs_;
    State state_;
    Timer timeout_;
    std::function<void()> on_can_receive_;
};

} // namespace vmm::dev
