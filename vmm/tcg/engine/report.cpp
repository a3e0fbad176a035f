#include "vmm/tcg/engine/report.h"

#include <fmt/core.h>

#include <algorithm>

namespace vmm::tcg {

namespace {
std::uint64_t percent(std::uint64_t part, std::uint64_t whole) { return whole ? part * 100 / whole : 0; }
} // namespace

std::string translation_report(BlockCache const& cache, BackendStatistics const& backend,
                               x86::MmuStatistics const& mmu) {
    std::uint64_t guest = 0, host = 0, longest = 0, crossing = 0;
    cache.for_each([&](CachedBlock const& block) {
        guest += block.bytes;
        host += block.translation->host_bytes;
        longest = std::max<std::uint64_t>(longest, block.bytes);
        crossing += block.crosses_page;
    });
    std::uint64_t const count = cache.size(), some = std::max<std::uint64_t>(count, 1);
    std::string text = "Translation buffer state:\n";
    auto line = [&](char const* name, std::string const& value) { text += fmt::format("{:<20}{}\n", name, value); };
    line("gen code size", fmt::format("{}/{}", backend.cache_used, backend.cache_size));
    line("TB count", fmt::format("{}", count));
    line("TB avg target size", fmt::format("{} max={} bytes", guest / some, longest));
    line("TB avg host size",
         fmt::format("{} bytes (expansion ratio: {:0.1f})", host / some, guest ? double(host) / double(guest) : 0.0));
    line("cross page TB count", fmt::format("{} ({}%)", crossing, percent(crossing, count)));
    line("direct jump count", fmt::format("{} ({} made)", backend.links_now, backend.links));
    text += "\nStatistics:\n";
    line("TBs translated",
         fmt::format("{} (target {} bytes, host {} bytes)", backend.blocks, backend.guest_bytes, backend.host_bytes));
    line("TB flush count", fmt::format("{}", cache.flushes()));
    line("TB invalidate count", fmt::format("{}", cache.invalidations()));
    line("TLB refills", fmt::format("{}", mmu.refills));
    line("TLB full flushes", fmt::format("{}", mmu.full_flushes));
    line("TLB partial flushes", fmt::format("{}", mmu.partial_flushes));
    line("TLB page flushes", fmt::format("{}", mmu.page_flushes));
    return text;
}

std::string hottest_blocks(BlockCache const& cache, unsigned count) {
    std::vector<CachedBlock const*> blocks;
    std::uint64_t entries = 0, instructions = 0;
    auto work = [](CachedBlock const* b) { return b->translation->executions * b->guest_insns; };
    cache.for_each([&](CachedBlock const& block) {
        blocks.push_back(&block);
        entries += block.translation->executions;
        instructions += work(&block);
    });
    count = unsigned(std::min<std::size_t>(count, blocks.size()));
    std::partial_sort(blocks.begin(), blocks.begin() + count, blocks.end(), [&](auto const* x, auto const* y) {
        return std::pair(work(x), x->linear) > std::pair(work(y), y->linear);
    });
    std::string text = fmt::format("TB executions: {}, guest instructions: {}\n"
                                   "executions  insns  share  target  host  address\n",
                                   entries, instructions);
    for (CachedBlock const* b : std::span(blocks).first(count))
        text += fmt::format("{:>10} {:>6} {:>5.1f}% {:>7} {:>5}  0x{:x}\n", b->translation->executions, b->guest_insns,
                            instructions ? 100.0 * double(work(b)) / double(instructions) : 0.0, b->bytes,
                            b->translation->host_bytes, b->linear);
    return text;
}

} // namespace vmm::tcg
