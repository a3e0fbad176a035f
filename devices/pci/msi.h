// MSI and MSI-X capabilities for a PciFunction (PCI Local Bus specification 3.0, section 6.8).
#pragma once
#include "devices/core/msi_target.h"
#include "devices/core/roles.h"
#include "devices/pci/bus.h"

#include <cstdint>
#include <vector>

namespace vmm::dev {

// Message-signalled interrupts with 64-bit addresses and per-vector masks. All of its state lies in the function's
// configuration space. Device lock.
class MsiCapability {
public:
    // Adds the capability; `vectors` is 1, 2, 4, 8, 16 or 32. The function and sink outlive it. The device calls
    // config_written from the function's on_write.
    MsiCapability(PciFunction& function, MsiTarget& sink, unsigned vectors);

    // While it is, the device must not use its interrupt pin.
    bool enabled() const;
    // Sends vector `vector` (below the constructor's `vectors`), or notes it as pending while it is masked. Vectors
    // beyond those the guest granted share its last bits as the specification lets devices do.
    void notify(unsigned vector);
    // Sends what became unmasked.
    void config_written(unsigned offset, unsigned size);

private:
    void send(unsigned vector);

    PciFunction& function_;
    MsiTarget& sink_;
    unsigned at_;
};

// MSI-X: a table of messages and a bit array of pending ones in a BAR of the function. Device lock.
class MsixCapability final {
public:
    static constexpr unsigned max_vectors = 2048, entry_size = 16;
    struct State {
        std::vector<std::uint32_t> table;   // four words a vector: address, upper address, data, control
        std::vector<std::uint64_t> pending; // a bit a vector
    };
    struct Layout {
        unsigned vectors = 1; // at most max_vectors
        unsigned bar = 0;
        std::uint32_t table_offset = 0, pending_offset = 0; // in the BAR, multiples of 8
    };
    // Adds the capability. The device puts table_window() and pending_window() among the BAR's windows, calls
    // config_written from the function's on_write, and saves state() with its own.
    MsixCapability(PciFunction& function, MsiTarget& sink, Layout layout);

    PciBarWindow table_window();
    PciBarWindow pending_window();
    // While it is, the device must not use its interrupt pin or MSI.
    bool enabled() const;
    void notify(unsigned vector);
    void config_written(unsigned offset, unsigned size);

    void reset();
    State const& state() const { return state_; }
    Result<void> check(State const& state) const;
    void restore(State const& state) { state_ = state; }

private:
    struct Table final : IoHandler {
        explicit Table(MsixCapability& to) : owner(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t offset, unsigned size, std::uint64_t value) override;
        MsixCapability& owner;
    };
    struct Pending final : IoHandler {
        explicit Pending(MsixCapability& to) : owner(to) {}
        std::uint64_t read(std::uint64_t offset, unsigned size) override;
        void write(std::uint64_t, unsigned, std::uint64_t) override {} // read-only
        MsixCapability& owner;
    };
    bool masked(unsigned vector) const;
    void deliver_unmasked();

    PciFunction& function_;
    MsiTarget& sink_;
    Layout layout_;
    unsigned at_;
    State state_;
    Table table_{*this};
    Pending pending_{*this};
};

template <class V> void fields(V& v, MsixCapability::State& s) {
    v.field("table", s.table);
    v.field("pending", s.pending);
}

} // namespace vmm::dev
