#include "vmm/tcg/engine/lockstep_memory.h"

#include "vmm/base/unique_fd.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace vmm::tcg {

Result<std::unique_ptr<ShadowMemory>> ShadowMemory::create(CpuBus& original) {
    std::unique_ptr<ShadowMemory> memory(new ShadowMemory(original));
    TRY(memory->follow_map());
    return memory;
}

Result<RamBlock*> ShadowMemory::copy_of(RamBlock& original) {
    for (Twin const& twin : twins_)
        if (twin.original == &original) return twin.copy.get();
    twins_.push_back({&original, TRY(RamBlock::create(original.name() + " (shadow)", original.size()))});
    return twins_.back().copy.get();
}

Result<void> ShadowMemory::follow_map() {
    FlatView const& view = original_.memory().view();
    if (shown_ == &view) return {};
    AddressSpace::Batch batch(space_);
    for (MappingId id : mappings_) space_.unmap(id);
    mappings_.clear();
    auto show = [&](std::vector<FlatRange> const& pieces, MapFor use) -> Result<void> {
        for (FlatRange const& piece : pieces) {
            if (!piece.backing.ram) continue;
            RamBlock* copy = TRY(copy_of(*piece.backing.ram));
            mappings_.push_back(space_.map({.name = copy->name(),
                                            .range = piece.range,
                                            .backing = Backing::of_ram(*copy, piece.backing.offset),
                                            .use = use}));
        }
        return {};
    };
    TRY(show(view.reads, MapFor::reads));
    TRY(show(view.writes, MapFor::writes));
    shown_ = &view;
    return {};
}

namespace {

// Which pages of a block have been touched, as the kernel's page map has it; all, when there is none to read.
class Touched {
public:
    explicit Touched(RamBlock const& block)
        : first_(reinterpret_cast<std::uintptr_t>(block.host()) >> page_bits), file_(map_of_this_process()) {}
    // Asked in rising order.
    bool operator()(std::uint64_t page) {
        if (page - from_ >= known_) fetch(page);
        return known_ == 0 || words_[page - from_] >> 62; // bit 63: present, 62: swapped
    }

private:
    static UniqueFd map_of_this_process() { return UniqueFd(open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC)); }
    void fetch(std::uint64_t page) {
        ssize_t got = pread(file_.get(), words_.data(), sizeof words_, off_t((first_ + page) * sizeof words_[0]));
        from_ = page;
        known_ = got > 0 ? std::uint64_t(got) / sizeof words_[0] : 0;
    }
    std::uint64_t first_, from_ = 0, known_ = 0;
    UniqueFd file_;
    std::array<std::uint64_t, 512> words_{};
};

} // namespace

// Visits the pages that either side has touched, until `visit` says false.
void ShadowMemory::for_each_page(Twin const& twin, std::function<bool(std::uint64_t offset)> const& visit) {
    Touched original(*twin.original), copy(*twin.copy);
    for (std::uint64_t page = 0; page < twin.original->size() >> page_bits; ++page) {
        bool const in_original = original(page), in_copy = copy(page);
        if ((in_original || in_copy) && !visit(page << page_bits)) return;
    }
}

void ShadowMemory::copy_contents() {
    for (Twin const& twin : twins_)
        for_each_page(twin, [&](std::uint64_t offset) {
            std::uint8_t const* from = twin.original->host() + offset;
            std::uint8_t* to = twin.copy->host() + offset;
            if (std::memcmp(to, from, page_size) != 0) {
                std::memcpy(to, from, page_size);
                twin.copy->written(offset, page_size);
            }
            return true;
        });
}

static std::string difference_at(RamBlock const& original, RamBlock const& copy, std::uint64_t offset) {
    return fmt::format("{}+{:#x}: {:02x} in the original, {:02x} in the copy", original.name(), offset,
                       original.host()[offset], copy.host()[offset]);
}

std::optional<std::string> ShadowMemory::find_difference() const {
    std::optional<std::string> found;
    for (Twin const& twin : twins_)
        for_each_page(twin, [&](std::uint64_t offset) {
            std::uint8_t const *a = twin.original->host() + offset, *b = twin.copy->host() + offset;
            if (!found && std::memcmp(a, b, page_size) != 0)
                found = difference_at(*twin.original, *twin.copy,
                                      offset + std::uint64_t(std::mismatch(a, a + page_size, b).first - a));
            return !found;
        });
    return found;
}

std::optional<std::string> ShadowMemory::find_difference(std::uint8_t const* at, unsigned size) const {
    for (Twin const& twin : twins_) {
        std::uint64_t offset = std::uint64_t(at - twin.copy->host());
        if (at < twin.copy->host() || offset + size > twin.copy->size()) continue;
        std::uint8_t const* original = twin.original->host() + offset;
        auto [mine, theirs] = std::mismatch(at, at + size, original);
        if (mine != at + size) return difference_at(*twin.original, *twin.copy, offset + std::uint64_t(mine - at));
        return std::nullopt;
    }
    VMM_UNREACHABLE();
}

std::uint8_t* ShadowMemory::original_of(std::uint8_t const* at) const {
    for (Twin const& twin : twins_)
        if (at >= twin.copy->host() && at < twin.copy->host() + twin.copy->size())
            return twin.original->host() + (at - twin.copy->host());
    return nullptr;
}

} // namespace vmm::tcg
