// AcpiPm: the ACPI fixed hardware of a PC: PM1 event and control registers, PM timer, one GPE block, the SMI command
// port (ACPI specification section 4.8; register layout of the Intel 82371AB, section 7.1).
#pragma once
#include "devices/core/irq_line.h"
#include "devices/core/roles.h"
#include "vmm/base/log.h"
#include "vmm/base/timer_queue.h"
#include "vmm/memory/io_handler.h"

#include <cstdint>

namespace vmm::dev {

// What the machine does when the guest switches it off. Called with the device lock held; asks the machine to end and
// returns.
class PowerControl {
public:
    virtual ~PowerControl() = default;
    // Soft off (S5).
    virtual void power_off() = 0;
};

// Width of the PM timer that the FADT announces (TMR_VAL_EXT).
enum class PmTimerWidth : std::uint8_t { bits24 = 24, bits32 = 32 };

// The SCI is a level: high while SCI_EN is set and an enabled event is pending. Device lock.
class AcpiPm final : public Resettable, public Snapshottable {
public:
    static constexpr std::uint64_t pm_timer_hz = 3'579'545;
    // The PM block: PM1 event at 0, PM1 control at 4, PM timer at 8; the rest of its 64 bytes reads as zero.
    static constexpr std::uint64_t pm_size = 64;
    static constexpr AccessRules pm_rules{.max_guest = 4, .max_impl = 4};
    // GPE0: two status bytes, then two enable bytes.
    static constexpr std::uint64_t gpe_size = 4;
    static constexpr AccessRules gpe_rules{.max_guest = 4, .max_impl = 1};
    static constexpr unsigned gpe_events = 16;
    // APMC at 0xb2, APMS at 0xb3.
    static constexpr std::uint64_t smi_size = 2;
    static constexpr AccessRules smi_rules{.max_guest = 2, .max_impl = 1};
    // The bytes the FADT names for the SMI command port.
    static constexpr std::uint8_t acpi_enable = 0xf1, acpi_disable = 0xf0;
    // SLP_TYP of soft off, for the DSDT's \_S5 (82371AB: SUS_TYP 0).
    static constexpr unsigned sleep_type_s5 = 0;

    struct State {
        std::uint16_t pm1_status = 0, pm1_enable = 0, pm1_control = 0;
        std::uint16_t gpe_status = 0, gpe_enable = 0;
        std::uint16_t gpe_levels = 0; // inputs held active by devices: they set their status bit again at once
        std::uint8_t smi_command = 0, smi_status = 0;
        std::int64_t carry_at = 0; // virtual time in ns when the PM timer's top bit changes next and sets TMR_STS
    };
    struct Needs {
        IrqLine& sci;
        TimerQueue& timers;
        PowerControl& power;
        Log& log;
        IrqLine* smi = nullptr; // pulsed by each write of the APM control port; may be absent
    };
    explicit AcpiPm(Needs needs, PmTimerWidth width = PmTimerWidth::bits24);

    IoHandler& pm() { return pm_; }
    IoHandler& gpe() { return gpe_; }
    IoHandler& smi() { return smi_; }

    // The user presses the power button for a moment: the guest's operating system is asked to shut down.
    void press_power_button();
    // A device's general-purpose event `n` (below gpe_events).
    void set_gpe(unsigned n, bool level);
    // What the guest finds already done when no firmware has run: ACPI mode on.
    void enter_acpi_mode();

    void reset() override;
    void save(StateWriter& to) const override;
    Result<void> load(StateReader& from) override;
    State const& state() const { return state_; }

private:
    struct Pm final : IoHandler {
        explicit Pm(AcpiPm& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        AcpiPm& device;
    };
    struct Gpe final : IoHandler {
        explicit Gpe(AcpiPm& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        AcpiPm& device;
    };
    struct Smi final : IoHandler {
        explicit Smi(AcpiPm& to) : device(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        AcpiPm& device;
    };

    std::uint64_t ticks(Nanoseconds at) const;
    Nanoseconds next_carry() const;
    void notice_carry();
    void write_pm_byte(unsigned offset, std::uint8_t value);
    void write_control(std::uint16_t value, bool high_byte);
    std::uint8_t read_pm_byte(unsigned offset) const;
    void update();

    Needs needs_;
    unsigned timer_bits_;
    State state_;
    Timer carry_;
    Pm pm_{*this};
    Gpe gpe_{*this};
    Smi smi_{*this};
};

} // namespace vmm::dev
