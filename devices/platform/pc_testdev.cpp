#include "devices/platform/pc_testdev.h"

#include "vmm/base/assert.h"

#include <algorithm>

namespace vmm::dev {

template <class V> void fields(V& v, PcTestdev::State& s) {
    v.field("latch", s.latch);
    v.field("byte", s.byte);
    v.field("flushes", s.flushes);
    for (unsigned i = 0; i < PcTestdev::irq_lines; ++i) v.field("level" + std::to_string(i), s.levels[i]);
    v.field("scratch", s.scratch);
}

PcTestdev::PcTestdev(std::span<IrqLine* const> lines) {
    VMM_ASSERT(lines.size() <= irq_lines);
    std::ranges::copy(lines, lines_.begin());
}

std::uint64_t PcTestdev::Bytes::read(std::uint64_t offset, unsigned size) {
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size && offset + i < bytes.size(); ++i)
        value |= std::uint64_t(bytes[offset + i]) << (8 * i);
    return value;
}

void PcTestdev::Bytes::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    for (unsigned i = 0; i < size && offset + i < bytes.size(); ++i) bytes[offset + i] = std::uint8_t(value >> (8 * i));
}

std::uint64_t PcTestdev::Irqs::read(std::uint64_t offset, unsigned) {
    return offset < irq_lines ? device.state_.levels[offset] : 0;
}

void PcTestdev::Irqs::write(std::uint64_t offset, unsigned, std::uint64_t value) {
    if (offset >= irq_lines) return;
    device.state_.levels[offset] = value != 0;
    device.drive(unsigned(offset));
}

void PcTestdev::drive(unsigned line) {
    if (lines_[line]) lines_[line]->set(state_.levels[line]);
}

void PcTestdev::reset() {
    std::ranges::fill(state_.latch, 0);
    std::ranges::fill(state_.levels, false);
    std::ranges::fill(state_.scratch, 0);
    state_.byte = 0;
    state_.flushes = 0;
    for (unsigned i = 0; i < irq_lines; ++i) drive(i);
}

void PcTestdev::save(StateWriter& to) const { save_state(to, state_); }

Result<void> PcTestdev::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.scratch.size() != scratch_size) return error("the test device's scratch memory has another size");
    state_.latch = loaded.latch;
    state_.byte = loaded.byte;
    state_.flushes = loaded.flushes;
    state_.levels = loaded.levels;
    std::ranges::copy(loaded.scratch, state_.scratch.begin()); // in place: the regions refer to it
    for (unsigned i = 0; i < irq_lines; ++i) drive(i);
    return {};
}

} // namespace vmm::dev
