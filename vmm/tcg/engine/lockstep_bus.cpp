#include "vmm/tcg/engine/lockstep_bus.h"

#include <fmt/core.h>

#include <utility>

namespace vmm::tcg {

using Kind = BusCall::Kind;

std::string BusCall::describe() const {
    static constexpr char const* names[] = {"mmio read",
                                            "mmio write",
                                            "port read",
                                            "port write",
                                            "interrupt acknowledge",
                                            "task priority read",
                                            "task priority write",
                                            "APIC MSR read",
                                            "APIC MSR write",
                                            "TSC read",
                                            "FERR#",
                                            "random number",
                                            "SMM"};
    return fmt::format("{} address {:#x} size {} value {:#x}{}", names[unsigned(kind)], address, size, value,
                       answered ? "" : " (refused)");
}

// --- recording

std::uint64_t RecordingBus::note(Kind kind, std::uint64_t address, unsigned size, std::uint64_t value) {
    record_.calls.push_back({.kind = kind, .address = address, .size = size, .value = value});
    return value;
}

std::uint64_t RecordingBus::mmio_read(GuestPhys a, unsigned size) {
    return note(Kind::mmio_read, a, size, machine_.mmio_read(a, size));
}

void RecordingBus::mmio_write(GuestPhys a, unsigned size, std::uint64_t value) {
    note(Kind::mmio_write, a, size, value);
    machine_.mmio_write(a, size, value);
}

std::uint32_t RecordingBus::port_read(std::uint16_t port, unsigned size) {
    return std::uint32_t(note(Kind::port_read, port, size, machine_.port_read(port, size)));
}

void RecordingBus::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
    note(Kind::port_write, port, size, value);
    machine_.port_write(port, size, value);
}

bool RecordingBus::interrupt_pending() const {
    bool pending = machine_.interrupt_pending();
    record_.interrupt_lines.push_back(pending);
    return pending;
}

std::optional<std::uint8_t> RecordingBus::acknowledge_interrupt() {
    auto vector = machine_.acknowledge_interrupt();
    record_.calls.push_back({.kind = Kind::acknowledge, .value = vector.value_or(0), .answered = vector.has_value()});
    return vector;
}

std::uint8_t RecordingBus::task_priority() {
    return std::uint8_t(note(Kind::task_priority, 0, 0, machine_.task_priority()));
}

void RecordingBus::set_task_priority(std::uint8_t cr8) {
    note(Kind::set_task_priority, 0, 0, cr8);
    machine_.set_task_priority(cr8);
}

std::optional<std::uint64_t> RecordingBus::apic_msr_read(std::uint32_t index) {
    auto value = machine_.apic_msr_read(index);
    record_.calls.push_back(
        {.kind = Kind::msr_read, .address = index, .value = value.value_or(0), .answered = value.has_value()});
    return value;
}

bool RecordingBus::apic_msr_write(std::uint32_t index, std::uint64_t value) {
    bool done = machine_.apic_msr_write(index, value);
    record_.calls.push_back({.kind = Kind::msr_write, .address = index, .value = value, .answered = done});
    return done;
}

std::uint64_t RecordingBus::tsc() { return note(Kind::tsc, 0, 0, machine_.tsc()); }

void RecordingBus::set_ferr(bool asserted) {
    note(Kind::ferr, 0, 0, asserted);
    machine_.set_ferr(asserted);
}

std::uint64_t RecordingBus::random(unsigned size) { return note(Kind::random, 0, size, machine_.random(size)); }

void RecordingBus::set_smm(bool active) {
    note(Kind::smm, 0, 0, active);
    machine_.set_smm(active);
}

// --- replaying

BusCall ReplayBus::take(BusCall const& call, bool tells) {
    BusCall unanswered = call;
    unanswered.answered = false;
    if (!difference_.empty()) return unanswered;
    if (next_ == record_.calls.size()) {
        difference_ = fmt::format("only the second engine made the access: {}", call.describe());
        return unanswered;
    }
    BusCall const& listed = record_.calls[next_];
    if (listed.kind != call.kind || listed.address != call.address || listed.size != call.size ||
        (tells && listed.value != call.value)) {
        difference_ = fmt::format("accesses differ: {} by the first engine, {} by the second", listed.describe(),
                                  call.describe());
        return unanswered;
    }
    ++next_;
    return listed;
}

std::string ReplayBus::difference() const {
    if (difference_.empty() && next_ < record_.calls.size())
        return fmt::format("only the first engine made the access: {}", record_.calls[next_].describe());
    return difference_;
}

std::uint64_t ReplayBus::mmio_read(GuestPhys a, unsigned size) {
    return take({.kind = Kind::mmio_read, .address = a, .size = size}, false).value;
}

void ReplayBus::mmio_write(GuestPhys a, unsigned size, std::uint64_t value) {
    take({.kind = Kind::mmio_write, .address = a, .size = size, .value = value}, true);
    after_write_();
}

std::uint32_t ReplayBus::port_read(std::uint16_t port, unsigned size) {
    return std::uint32_t(take({.kind = Kind::port_read, .address = port, .size = size}, false).value);
}

void ReplayBus::port_write(std::uint16_t port, unsigned size, std::uint32_t value) {
    take({.kind = Kind::port_write, .address = port, .size = size, .value = value}, true);
    after_write_();
}

void ReplayBus::set_smm(bool active) {
    take({.kind = Kind::smm, .value = active}, true);
    after_write_();
}

bool ReplayBus::interrupt_pending() const {
    return next_line_ < record_.interrupt_lines.size() && record_.interrupt_lines[next_line_++];
}

std::optional<std::uint8_t> ReplayBus::acknowledge_interrupt() {
    BusCall call = take({.kind = Kind::acknowledge}, false);
    return call.answered ? std::optional(std::uint8_t(call.value)) : std::nullopt;
}

std::uint8_t ReplayBus::task_priority() { return std::uint8_t(take({.kind = Kind::task_priority}, false).value); }

void ReplayBus::set_task_priority(std::uint8_t cr8) { take({.kind = Kind::set_task_priority, .value = cr8}, true); }

std::optional<std::uint64_t> ReplayBus::apic_msr_read(std::uint32_t index) {
    BusCall call = take({.kind = Kind::msr_read, .address = index}, false);
    return call.answered ? std::optional(call.value) : std::nullopt;
}

bool ReplayBus::apic_msr_write(std::uint32_t index, std::uint64_t value) {
    return take({.kind = Kind::msr_write, .address = index, .value = value}, true).answered;
}

std::uint64_t ReplayBus::tsc() { return take({.kind = Kind::tsc}, false).value; }

void ReplayBus::set_ferr(bool asserted) { take({.kind = Kind::ferr, .value = asserted}, true); }

std::uint64_t ReplayBus::random(unsigned size) { return take({.kind = Kind::random, .size = size}, false).value; }

} // namespace vmm::tcg
