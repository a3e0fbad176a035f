#include "tests/diff/minimise.h"

#include <algorithm>

namespace vmm::diff {

namespace {

// Overwrites one instruction. False: it has to stay.
bool drop(Sequence& s, std::size_t index) {
    auto& insn = s.instructions[index];
    if (insn.dropped) return false;
    if (insn.needed_by >= 0 && !s.instructions[std::size_t(insn.needed_by)].dropped) return false;
    insn.dropped = true;
    std::fill_n(s.code.begin() + insn.offset, insn.length, std::uint8_t(0x90));
    return true;
}

// Runs of `length` instructions, last ones first: what follows the difference goes at once.
bool drop_runs(Sequence& s, std::size_t length, std::function<bool(Sequence const&)> const& differs) {
    bool any = false;
    std::size_t count = s.instructions.size();
    for (std::size_t end = count; end > 0; end = end > length ? end - length : 0) {
        Sequence candidate = s;
        bool dropped = false;
        for (std::size_t i = end; i-- > (end > length ? end - length : 0);) dropped |= drop(candidate, i);
        if (!dropped || !track_flags(candidate) || !differs(candidate)) continue;
        s = std::move(candidate);
        any = true;
    }
    return any;
}

void simplify_start(Sequence& s, std::function<bool(Sequence const&)> const& differs) {
    auto attempt = [&](auto change) {
        Sequence candidate = s;
        change(candidate.start);
        if (differs(candidate)) s = std::move(candidate);
    };
    for (unsigned i = 0; i < 14; ++i)
        if (i != 4) attempt([i](Registers& r) { r.gpr[i] = 0; });
    for (unsigned i = 0; i < 16; ++i) attempt([i](Registers& r) { r.ymm[i] = {}; });
    for (unsigned i = 0; i < 8; ++i) attempt([i](Registers& r) { r.st[i] = {}; });
    attempt([](Registers& r) { r.rflags = 0x202; });
    attempt([](Registers& r) { r.mxcsr = 0x1f80; });
    attempt([](Registers& r) { r.fcw = 0x37f; });
    attempt([](Registers& r) { r.fsw = 0; });
    attempt([](Registers& r) { r.tags = 0; });
}

} // namespace

Sequence minimise(Sequence s, std::function<bool(Sequence const&)> const& differs) {
    for (std::size_t length = std::max<std::size_t>(s.instructions.size() / 2, 1);;) {
        bool any = drop_runs(s, length, differs);
        if (length == 1 && !any) break;
        length = std::max<std::size_t>(length / 2, 1);
    }
    simplify_start(s, differs);
    return s;
}

} // namespace vmm::diff
