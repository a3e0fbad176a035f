#include "devices/platform/acpi_pm.h"

#include "vmm/base/assert.h"

namespace vmm::dev {

namespace {
// Offsets in the PM block (82371AB section 7.1).
enum : unsigned { reg_pmsts = 0x00, reg_pmen = 0x02, reg_pmcntrl = 0x04, reg_pmtmr = 0x08 };

enum : std::uint16_t { tmr_sts = 1 << 0, bm_sts = 1 << 4, gbl_sts = 1 << 5, pwrbtn_sts = 1 << 8 };
enum : std::uint16_t { slpbtn_sts = 1 << 9, rtc_sts = 1 << 10, wak_sts = 1 << 15 };
constexpr std::uint16_t status_bits = tmr_sts | bm_sts | gbl_sts | pwrbtn_sts | slpbtn_sts | rtc_sts | wak_sts;
constexpr std::uint16_t enable_bits = tmr_sts | gbl_sts | pwrbtn_sts | slpbtn_sts | rtc_sts; // each enables its status
enum : std::uint16_t { sci_en = 1 << 0, bm_rld = 1 << 1, slp_typ = 7 << 10, slp_en = 1 << 13 };
constexpr std::uint16_t control_bits = sci_en | bm_rld | slp_typ; // GBL_RLS and SLP_EN read as zero

constexpr std::uint8_t byte_of(std::uint64_t value, unsigned index) { return std::uint8_t(value >> (8 * index)); }
constexpr std::uint16_t with_byte(std::uint16_t old, unsigned index, std::uint8_t value) {
    return std::uint16_t((old & ~(0xff << (8 * index))) | value << (8 * index));
}
} // namespace

template <class V> void fields(V& v, AcpiPm::State& s) {
    v.field("pm1_status", s.pm1_status);
    v.field("pm1_enable", s.pm1_enable);
    v.field("pm1_control", s.pm1_control);
    v.field("gpe_status", s.gpe_status);
    v.field("gpe_enable", s.gpe_enable);
    v.field("gpe_levels", s.gpe_levels);
    v.field("smi_command", s.smi_command);
    v.field("smi_status", s.smi_status);
    v.field("carry_at", s.carry_at);
}

AcpiPm::AcpiPm(Needs needs, PmTimerWidth width)
    : needs_(needs), timer_bits_(unsigned(width)), carry_(needs.timers, [this] { update(); }) {
    state_.carry_at = next_carry();
}

std::uint64_t AcpiPm::ticks(Nanoseconds at) const {
    return std::uint64_t((unsigned __int128)(std::uint64_t(at)) * pm_timer_hz / nanoseconds_per_second);
}

// When the top bit changes next: the first instant whose tick count is the next multiple of half the timer's range.
Nanoseconds AcpiPm::next_carry() const {
    std::uint64_t half = std::uint64_t(1) << (timer_bits_ - 1);
    std::uint64_t target = (ticks(needs_.timers.now()) / half + 1) * half;
    auto at = ((unsigned __int128)(target)*nanoseconds_per_second + pm_timer_hz - 1) / pm_timer_hz;
    return at > INT64_MAX ? INT64_MAX : Nanoseconds(at);
}

// TMR_STS is kept lazily: a timer runs only while the guest wants the interrupt.
void AcpiPm::notice_carry() {
    if (needs_.timers.now() < state_.carry_at) return;
    state_.pm1_status |= tmr_sts;
    state_.carry_at = next_carry();
}

void AcpiPm::update() {
    notice_carry();
    bool events = state_.pm1_status & state_.pm1_enable & enable_bits;
    bool general = state_.gpe_status & state_.gpe_enable;
    needs_.sci.set((state_.pm1_control & sci_en) && (events || general));
    if ((state_.pm1_enable & tmr_sts) && !(state_.pm1_status & tmr_sts))
        carry_.arm(state_.carry_at);
    else
        carry_.cancel();
}

std::uint8_t AcpiPm::read_pm_byte(unsigned offset) const {
    switch (offset & ~1u) {
    case reg_pmsts: return byte_of(state_.pm1_status, offset & 1);
    case reg_pmen: return byte_of(state_.pm1_enable, offset & 1);
    case reg_pmcntrl: return byte_of(state_.pm1_control, offset & 1);
    default: return 0;
    }
}

std::uint64_t AcpiPm::Pm::read(std::uint64_t offset, unsigned size) {
    device.notice_carry();
    // One look at the clock for all bytes: a timer read must not tear.
    std::uint64_t timer = device.ticks(device.needs_.timers.now()) & ((std::uint64_t(1) << device.timer_bits_) - 1);
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) {
        unsigned at = unsigned(offset) + i;
        bool in_timer = at >= reg_pmtmr && at < reg_pmtmr + 4;
        std::uint64_t byte = in_timer ? byte_of(timer, at - reg_pmtmr) : device.read_pm_byte(at);
        value |= byte << (8 * i);
    }
    return value;
}

void AcpiPm::Pm::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    device.notice_carry();
    for (unsigned i = 0; i < size; ++i) device.write_pm_byte(unsigned(offset) + i, byte_of(value, i));
    device.update();
}

void AcpiPm::write_pm_byte(unsigned offset, std::uint8_t value) {
    unsigned half = offset & 1;
    switch (offset & ~1u) {
    case reg_pmsts: state_.pm1_status &= std::uint16_t(~(value << (8 * half))); break;
    case reg_pmen: state_.pm1_enable = with_byte(state_.pm1_enable, half, value) & enable_bits; break;
    case reg_pmcntrl: write_control(with_byte(state_.pm1_control, half, value), half != 0); break;
    default: break; // the timer is read-only, the rest is not there
    }
}

// `high_byte`: the byte with SLP_EN was written; only then it acts.
void AcpiPm::write_control(std::uint16_t value, bool high_byte) {
    state_.pm1_control = value & control_bits;
    if (!high_byte || !(value & slp_en)) return;
    unsigned type = (value & slp_typ) >> 10;
    if (type == sleep_type_s5) return needs_.power.power_off();
    needs_.log.unimp("acpi: the guest asked for sleep type {}, which no table offers", type);
}

std::uint64_t AcpiPm::Gpe::read(std::uint64_t offset, unsigned) {
    return byte_of(offset & 2 ? device.state_.gpe_enable : device.state_.gpe_status, offset & 1);
}

void AcpiPm::Gpe::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    State& s = device.state_;
    if (offset & 2)
        s.gpe_enable = with_byte(s.gpe_enable, offset & 1, std::uint8_t(value));
    else
        s.gpe_status = std::uint16_t((s.gpe_status & ~((value & 0xff) << (8 * (offset & 1)))) | s.gpe_levels);
    device.update();
}

std::uint64_t AcpiPm::Smi::read(std::uint64_t offset, unsigned) {
    return offset == 0 ? device.state_.smi_command : device.state_.smi_status;
}

void AcpiPm::Smi::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    State& s = device.state_;
    if (offset != 0) {
        s.smi_status = std::uint8_t(value);
        return;
    }
    s.smi_command = std::uint8_t(value);
    // What a firmware's SMI handler would do for the operating system.
    if (s.smi_command == acpi_enable) s.pm1_control |= sci_en;
    if (s.smi_command == acpi_disable) s.pm1_control &= std::uint16_t(~sci_en);
    device.update();
    if (IrqLine* smi = device.needs_.smi) {
        smi->set(true);
        smi->set(false);
    }
}

void AcpiPm::press_power_button() {
    state_.pm1_status |= pwrbtn_sts;
    update();
}

void AcpiPm::set_gpe(unsigned n, bool level) {
    VMM_ASSERT(n < gpe_events);
    auto bit = std::uint16_t(1u << n);
    state_.gpe_levels = std::uint16_t(level ? state_.gpe_levels | bit : state_.gpe_levels & ~bit);
    state_.gpe_status |= state_.gpe_levels;
    update();
}

void AcpiPm::enter_acpi_mode() {
    state_.pm1_control |= sci_en;
    update();
}

void AcpiPm::reset() {
    // The inputs belong to the devices that drive them; their own reset releases them.
    std::uint16_t levels = state_.gpe_levels;
    state_ = State{};
    state_.gpe_levels = state_.gpe_status = levels;
    state_.carry_at = next_carry();
    update();
}

void AcpiPm::save(StateWriter& to) const { save_state(to, state_); }

Result<void> AcpiPm::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if ((loaded.pm1_status & ~status_bits) || (loaded.pm1_enable & ~enable_bits) ||
        (loaded.pm1_control & ~control_bits) || loaded.carry_at < 0)
        return error("an ACPI power management register holds bits that do not exist");
    state_ = loaded;
    update();
    return {};
}

} // namespace vmm::dev
