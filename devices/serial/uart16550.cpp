#include "devices/serial/uart16550.h"

#include <algorithm>

namespace vmm::dev {

namespace {
// Register offsets (table II). DLAB is LCR bit 7.
enum : unsigned { reg_rbr_thr_dll = 0, reg_ier_dlm = 1, reg_iir_fcr = 2, reg_lcr = 3, reg_mcr = 4, reg_lsr = 5 };
enum : unsigned { reg_msr = 6, reg_scr = 7 };

enum : std::uint8_t { ier_erbfi = 0x01, ier_etbei = 0x02, ier_elsi = 0x04, ier_edssi = 0x08, ier_mask = 0x0f };
enum : std::uint8_t { iir_none = 0x01, iir_msr = 0x00, iir_thre = 0x02, iir_data = 0x04, iir_line = 0x06 };
enum : std::uint8_t { iir_timeout = 0x0c, iir_id_mask = 0x0f, iir_fifos = 0xc0 };
enum : std::uint8_t { fcr_enable = 0x01, fcr_clear_receiver = 0x02, fcr_clear_transmitter = 0x04, fcr_kept = 0xc9 };
enum : std::uint8_t { lcr_stop = 0x04, lcr_parity = 0x08, lcr_break = 0x40, lcr_dlab = 0x80 };
enum : std::uint8_t { mcr_dtr = 0x01, mcr_rts = 0x02, mcr_out1 = 0x04, mcr_out2 = 0x08, mcr_loop = 0x10 };
constexpr std::uint8_t mcr_mask = 0x1f;
enum : std::uint8_t { lsr_dr = 0x01, lsr_oe = 0x02, lsr_pe = 0x04, lsr_fe = 0x08, lsr_bi = 0x10 };
enum : std::uint8_t { lsr_thre = 0x20, lsr_temt = 0x40, lsr_fifo_error = 0x80 };
constexpr std::uint8_t lsr_character_errors = lsr_pe | lsr_fe | lsr_bi;
enum : std::uint8_t {
    msr_deltas = 0x0f,
    msr_teri = 0x04,
    msr_cts = 0x10,
    msr_dsr = 0x20,
    msr_ri = 0x40,
    msr_dcd = 0x80
};

constexpr unsigned baud_base = 115200; // the 1.8432 MHz crystal divided by 16
constexpr std::array<std::uint8_t, 4> trigger_levels = {1, 4, 8, 14};

void push(Uart16550::Fifo& fifo, std::uint8_t value, std::uint8_t errors) {
    fifo.data[fifo.count] = value;
    fifo.errors[fifo.count++] = errors;
}
void pop(Uart16550::Fifo& fifo, unsigned count) {
    std::copy(fifo.data.begin() + count, fifo.data.end(), fifo.data.begin());
    std::copy(fifo.errors.begin() + count, fifo.errors.end(), fifo.errors.begin());
    fifo.count = std::uint8_t(fifo.count - count);
}
} // namespace

template <class V> void fields(V& v, Uart16550::Fifo& s) {
    v.field("data", s.data);
    v.field("errors", s.errors);
    v.field("count", s.count);
}
template <class V> void fields(V& v, Uart16550::State& s) {
    v.field("ier", s.ier);
    v.field("fcr", s.fcr);
    v.field("lcr", s.lcr);
    v.field("mcr", s.mcr);
    v.field("scratch", s.scratch);
    v.field("lsr_errors", s.lsr_errors);
    v.field("msr", s.msr);
    v.field("divisor", s.divisor);
    v.field("receiver", s.receiver);
    v.field("transmitter", s.transmitter);
    v.field("thre_pending", s.thre_pending);
    v.field("timeout_pending", s.timeout_pending);
    v.field("timeout_at", s.timeout_at);
}

Uart16550::Uart16550(Needs needs)
    : needs_(needs), timeout_(needs.timers, [this] {
          state_.timeout_at = -1;
          state_.timeout_pending = true;
          update_irq();
      }) {
    state_.msr = modem_inputs();
    needs_.output.set_on_writable([this] { drain(); });
}

bool Uart16550::fifo_enabled() const { return state_.fcr & fcr_enable; }
bool Uart16550::loopback() const { return state_.mcr & mcr_loop; }
unsigned Uart16550::receiver_depth() const { return fifo_enabled() ? fifo_size : 1; }

// Section 8.5: the highest pending interrupt, in IIR's code.
std::uint8_t Uart16550::interrupt_identification() const {
    if ((state_.ier & ier_elsi) && state_.lsr_errors) return iir_line;
    if (state_.ier & ier_erbfi) {
        unsigned trigger = fifo_enabled() ? trigger_levels[state_.fcr >> 6] : 1;
        if (state_.receiver.count >= trigger) return iir_data;
        if (state_.timeout_pending) return iir_timeout;
    }
    if ((state_.ier & ier_etbei) && state_.thre_pending) return iir_thre;
    if ((state_.ier & ier_edssi) && (state_.msr & msr_deltas)) return iir_msr;
    return iir_none;
}

std::uint8_t Uart16550::line_status() const {
    std::uint8_t status = state_.lsr_errors;
    if (state_.receiver.count) status |= lsr_dr;
    if (!state_.transmitter.count) status |= lsr_thre | lsr_temt;
    if (fifo_enabled())
        for (unsigned i = 0; i < state_.receiver.count; ++i)
            if (state_.receiver.errors[i]) status |= lsr_fifo_error;
    return status;
}

// The modem's side of the cable: looped back outputs, or a peer that is always there and ready.
std::uint8_t Uart16550::modem_inputs() const {
    if (!loopback()) return msr_cts | msr_dsr | msr_dcd;
    return std::uint8_t((state_.mcr & mcr_rts ? msr_cts : 0) | (state_.mcr & mcr_dtr ? msr_dsr : 0) |
                        (state_.mcr & mcr_out1 ? msr_ri : 0) | (state_.mcr & mcr_out2 ? msr_dcd : 0));
}

// Section 8.11: four character times, a character being start, data, parity and stop bits at the programmed rate.
Nanoseconds Uart16550::timeout_interval() const {
    unsigned bits = 1 + 5 + (state_.lcr & 3) + (state_.lcr & lcr_parity ? 1 : 0) + (state_.lcr & lcr_stop ? 2 : 1);
    unsigned divisor = state_.divisor ? state_.divisor : 1; // 0 stops a real part's clock; the host's bytes still come
    return Nanoseconds(4) * bits * divisor * nanoseconds_per_second / baud_base;
}

std::uint64_t Uart16550::read(std::uint64_t offset, unsigned) {
    bool dlab = state_.lcr & lcr_dlab;
    switch (offset & 7) {
    case reg_rbr_thr_dll: return dlab ? state_.divisor & 0xff : read_rbr();
    case reg_ier_dlm: return dlab ? state_.divisor >> 8 : state_.ier;
    case reg_iir_fcr: return read_iir();
    case reg_lcr: return state_.lcr;
    case reg_mcr: return state_.mcr;
    case reg_lsr: return read_lsr();
    case reg_msr: return read_msr();
    default: return state_.scratch;
    }
}

void Uart16550::write(std::uint64_t offset, unsigned, std::uint64_t wide) {
    auto value = std::uint8_t(wide);
    bool dlab = state_.lcr & lcr_dlab;
    switch (offset & 7) {
    case reg_rbr_thr_dll:
        if (!dlab) return write_thr(value);
        state_.divisor = std::uint16_t((state_.divisor & 0xff00) | value);
        break;
    case reg_ier_dlm:
        if (!dlab) return write_ier(value);
        state_.divisor = std::uint16_t((state_.divisor & 0x00ff) | value << 8);
        break;
    case reg_iir_fcr: return write_fcr(value);
    case reg_lcr: return write_lcr(value);
    case reg_mcr: return write_mcr(value);
    case reg_scr: state_.scratch = value; break;
    default: break; // LSR and MSR: writing them is for the factory only
    }
}

std::uint8_t Uart16550::read_rbr() {
    if (!state_.receiver.count) return state_.receiver.data[0]; // an empty receiver shows the last character again
    std::uint8_t value = state_.receiver.data[0];
    pop(state_.receiver, 1);
    if (state_.receiver.count)
        state_.lsr_errors |= state_.receiver.errors[0];
    else
        state_.receiver.data[0] = value;
    state_.timeout_pending = false;
    restart_timeout();
    update_irq();
    if (on_can_receive_) on_can_receive_();
    return value;
}

std::uint8_t Uart16550::read_iir() {
    std::uint8_t id = interrupt_identification();
    if (id == iir_thre) { // reading it as the source is what acknowledges it
        state_.thre_pending = false;
        update_irq();
    }
    return std::uint8_t(id | (fifo_enabled() ? iir_fifos : 0));
}

std::uint8_t Uart16550::read_lsr() {
    std::uint8_t status = line_status();
    state_.lsr_errors = 0;
    if (state_.receiver.count) state_.receiver.errors[0] = 0;
    update_irq();
    return status;
}

std::uint8_t Uart16550::read_msr() {
    std::uint8_t status = state_.msr;
    state_.msr &= std::uint8_t(~msr_deltas);
    update_irq();
    return status;
}

void Uart16550::write_thr(std::uint8_t value) {
    state_.thre_pending = false;
    if (loopback()) {
        push_received(value, 0);
        state_.thre_pending = true;
        return update_irq();
    }
    if (!fifo_enabled())
        state_.transmitter.count = 0; // THR is overwritten
    else if (state_.transmitter.count == fifo_size)
        return update_irq(); // a full FIFO loses the character
    push(state_.transmitter, value, 0);
    drain();
}

// Hands the sink what it takes now; THR-empty is raised when that was everything.
void Uart16550::drain() {
    if (state_.transmitter.count) {
        pop(state_.transmitter,
            unsigned(needs_.output.write({state_.transmitter.data.data(), state_.transmitter.count})));
        if (!state_.transmitter.count) state_.thre_pending = true;
    }
    update_irq();
}

void Uart16550::write_ier(std::uint8_t value) {
    // Enabling the transmitter interrupt while THR is empty raises it at once.
    if (!(state_.ier & ier_etbei) && (value & ier_etbei) && !state_.transmitter.count) state_.thre_pending = true;
    state_.ier = value & ier_mask;
    update_irq();
}

void Uart16550::write_fcr(std::uint8_t value) {
    bool switched = (state_.fcr ^ value) & fcr_enable;
    // Without the enable bit the other bits are not programmed (section 8.3).
    state_.fcr = value & fcr_enable ? value & fcr_kept : 0;
    if (switched || (value & fcr_enable && value & fcr_clear_receiver)) clear_receiver();
    if (switched || (value & fcr_enable && value & fcr_clear_transmitter)) clear_transmitter();
    restart_timeout();
    update_irq();
    if (on_can_receive_) on_can_receive_();
}

void Uart16550::write_lcr(std::uint8_t value) {
    bool was = state_.lcr & lcr_break, is = value & lcr_break;
    state_.lcr = value;
    if (was == is) return;
    if (!loopback()) return needs_.output.send_break(is);
    if (is) push_received(0, lsr_bi);
    update_irq();
}

void Uart16550::write_mcr(std::uint8_t value) {
    bool was_loopback = loopback();
    state_.mcr = value & mcr_mask;
    update_modem_inputs();
    update_irq();
    if (was_loopback && !loopback() && on_can_receive_) on_can_receive_();
}

void Uart16550::update_modem_inputs() {
    std::uint8_t before = state_.msr & 0xf0, now = modem_inputs();
    auto deltas = std::uint8_t((before ^ now) >> 4);
    // TERI marks only the trailing edge of the ring signal.
    if (now & msr_ri) deltas &= std::uint8_t(~msr_teri);
    state_.msr = std::uint8_t(now | (state_.msr & msr_deltas) | deltas);
}

void Uart16550::push_received(std::uint8_t value, std::uint8_t errors) {
    if (state_.receiver.count == receiver_depth()) {
        state_.lsr_errors |= lsr_oe;
        if (!fifo_enabled()) { // RBR is overwritten; a full FIFO keeps its characters
            state_.receiver.data[0] = value;
            state_.lsr_errors |= errors;
        }
        return;
    }
    push(state_.receiver, value, errors);
    if (state_.receiver.count == 1) state_.lsr_errors |= errors;
    restart_timeout();
}

void Uart16550::clear_receiver() {
    state_.receiver.count = 0;
    state_.timeout_pending = false;
}

void Uart16550::clear_transmitter() {
    if (state_.transmitter.count) state_.thre_pending = true;
    state_.transmitter.count = 0;
}

// The timeout counts from the last character received or read, while any is left (section 8.11).
void Uart16550::restart_timeout() {
    timeout_.cancel();
    state_.timeout_at = -1;
    if (!fifo_enabled() || !state_.receiver.count || state_.timeout_pending) return;
    state_.timeout_at = needs_.timers.now() + timeout_interval();
    timeout_.arm(state_.timeout_at);
}

void Uart16550::update_irq() { needs_.irq.set(interrupt_identification() != iir_none); }

std::size_t Uart16550::can_receive() const { return loopback() ? 0 : receiver_depth() - state_.receiver.count; }

void Uart16550::receive(std::span<std::uint8_t const> bytes) {
    if (loopback()) return;
    for (std::uint8_t byte : bytes) push_received(byte, 0);
    update_irq();
}

void Uart16550::receive_break() {
    if (loopback()) return;
    push_received(0, lsr_bi);
    update_irq();
}

void Uart16550::set_on_can_receive(std::function<void()> callback) { on_can_receive_ = std::move(callback); }

void Uart16550::reset() {
    if (state_.lcr & lcr_break) needs_.output.send_break(false);
    state_ = State{};
    state_.msr = modem_inputs();
    restart_timeout();
    update_irq();
    if (on_can_receive_) on_can_receive_();
}

void Uart16550::save(StateWriter& to) const { save_state(to, state_); }

Result<void> Uart16550::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.ier > ier_mask || loaded.mcr > mcr_mask || (loaded.fcr & ~fcr_kept) ||
        (loaded.lsr_errors & ~(lsr_oe | lsr_character_errors)))
        return error("a UART register holds bits that do not exist");
    unsigned depth = loaded.fcr & fcr_enable ? fifo_size : 1;
    if (loaded.receiver.count > depth || loaded.transmitter.count > depth)
        return error("a UART FIFO holds more characters than it has room for");
    for (std::uint8_t errors : loaded.receiver.errors)
        if (errors & ~lsr_character_errors) return error("a UART FIFO holds an impossible character status");
    if (loaded.timeout_at < -1) return error("the UART's character timeout lies before time began");
    state_ = loaded;
    state_.timeout_at >= 0 ? timeout_.arm(state_.timeout_at) : timeout_.cancel();
    update_irq();
    return {};
}

} // namespace vmm::dev
