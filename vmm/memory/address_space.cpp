#include "vmm/memory/address_space.h"

#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace vmm {

Result<AddressRange> AddressRange::create(GuestPhys base, std::uint64_t size) {
    if (size == 0) return error("an address range at {:#x} is empty", base);
    if (base + (size - 1) < base) return error("an address range of {:#x} bytes at {:#x} wraps around", size, base);
    return AddressRange{base, base + (size - 1)};
}

AddressRange AddressRange::of(GuestPhys base, std::uint64_t size) { return create(base, size).value(); }

FlatRange const* FlatView::find(std::vector<FlatRange> const& pieces, GuestPhys a) {
    auto it = std::upper_bound(pieces.begin(), pieces.end(), a,
                               [](GuestPhys v, FlatRange const& p) { return v < p.range.first; });
    if (it == pieces.begin()) return nullptr;
    --it;
    return it->range.contains(a) ? &*it : nullptr;
}

AddressSpace::AddressSpace(std::string name, GuestPhys limit) : name_(std::move(name)), limit_(limit) {
    views_.emplace_back();
    view_ = &views_.back();
}
AddressSpace::~AddressSpace() = default;

MappingId AddressSpace::map(Mapping mapping) {
    VMM_ASSERT((mapping.backing.ram != nullptr) != (mapping.backing.io != nullptr));
    VMM_ASSERT(mapping.range.last <= limit_);
    if (mapping.backing.ram)
        VMM_ASSERT(mapping.backing.offset + (mapping.range.last - mapping.range.first) < mapping.backing.ram->size());
    MappingId id = next_id_++;
    mappings_.emplace(id, std::move(mapping));
    if (batch_depth_ == 0) rebuild();
    return id;
}

void AddressSpace::unmap(MappingId id) {
    VMM_ASSERT(mappings_.erase(id) == 1);
    if (batch_depth_ == 0) rebuild();
}

void AddressSpace::update(MappingId id, Mapping mapping) {
    auto it = mappings_.find(id);
    VMM_ASSERT(it != mappings_.end());
    it->second = std::move(mapping);
    if (batch_depth_ == 0) rebuild();
}

std::vector<FlatRange> AddressSpace::flatten(MapFor use) const {
    // Sweep over the range borders; at each, the best active mapping covers up to the next border.
    struct Better {
        bool operator()(std::pair<int, MappingId> a, std::pair<int, MappingId> b) const { return a > b; }
    };
    std::map<GuestPhys, std::vector<std::pair<MappingId, bool>>> borders; // address -> (mapping, begins)
    for (auto const& [id, m] : mappings_) {
        if (!(std::uint8_t(m.use) & std::uint8_t(use))) continue;
        borders[m.range.first].push_back({id, true});
        if (m.range.last != UINT64_MAX) borders[m.range.last + 1].push_back({id, false});
    }
    std::set<std::pair<int, MappingId>, Better> active;
    std::vector<FlatRange> pieces;
    for (auto it = borders.begin(); it != borders.end(); ++it) {
        for (auto [id, begins] : it->second) {
            std::pair<int, MappingId> key{mappings_.at(id).priority, id};
            begins ? void(active.insert(key)) : void(active.erase(key));
        }
        if (active.empty()) continue;
        GuestPhys first = it->first;
        GuestPhys last = std::next(it) == borders.end() ? UINT64_MAX : std::next(it)->first - 1;
        MappingId id = active.begin()->second;
        Mapping const& m = mappings_.at(id);
        if (!pieces.empty() && pieces.back().mapping == id && pieces.back().range.last + 1 == first) {
            pieces.back().range.last = last;
            continue;
        }
        Backing backing = m.backing;
        backing.offset += first - m.range.first;
        pieces.push_back({{first, last}, backing, id});
    }
    return pieces;
}

void AddressSpace::rebuild() {
    FlatView view;
    view.reads = flatten(MapFor::reads);
    view.writes = flatten(MapFor::writes);
    views_.push_back(std::move(view));
    view_.store(&views_.back(), std::memory_order_release);
    notify();
}

void AddressSpace::reclaim() {
    while (views_.size() > 1) views_.pop_front(); // the newest is last
}

void AddressSpace::notify() {
    for (auto const& [token, listener] : listeners_) listener();
}

unsigned AddressSpace::add_listener(Listener listener) {
    listeners_.emplace(next_listener_, std::move(listener));
    return next_listener_++;
}

void AddressSpace::remove_listener(unsigned token) { listeners_.erase(token); }

static std::uint64_t ones(unsigned size) {
    return size == 8 ? ~std::uint64_t(0) : (std::uint64_t(1) << (size * 8)) - 1;
}

std::uint64_t AddressSpace::io_read(FlatRange const& piece, GuestPhys a, unsigned size) {
    AccessRules const& rules = piece.backing.rules;
    std::uint64_t offset = piece.backing.offset + (a - piece.range.first);
    if (size < rules.min_guest || size > rules.max_guest) return ones(size);
    IoHandler& io = *piece.backing.io;
    unsigned step = std::clamp<unsigned>(size, rules.min_impl, rules.max_impl);
    if (!rules.unaligned)
        while (step > rules.min_impl && (offset & (step - 1))) step /= 2;
    if (step == size && (rules.unaligned || !(offset & (step - 1)))) return io.read(offset, size) & ones(size);
    std::uint64_t value = 0;
    for (unsigned done = 0; done < size;) {
        std::uint64_t at = offset + done, base = at & ~std::uint64_t(step - 1);
        unsigned skip = unsigned(at - base), take = std::min(step - skip, size - done);
        std::uint64_t part = (io.read(base, step) & ones(step)) >> (skip * 8);
        value |= (part & ones(take)) << (done * 8);
        done += take;
    }
    return value;
}

void AddressSpace::io_write(FlatRange const& piece, GuestPhys a, unsigned size, std::uint64_t value) {
    AccessRules const& rules = piece.backing.rules;
    std::uint64_t offset = piece.backing.offset + (a - piece.range.first);
    if (size < rules.min_guest || size > rules.max_guest) return;
    IoHandler& io = *piece.backing.io;
    value &= ones(size);
    unsigned step = std::clamp<unsigned>(size, rules.min_impl, rules.max_impl);
    if (!rules.unaligned)
        while (step > rules.min_impl && (offset & (step - 1))) step /= 2;
    for (unsigned done = 0; done < size;) {
        std::uint64_t at = offset + done, base = rules.unaligned ? at : at & ~std::uint64_t(step - 1);
        unsigned skip = unsigned(at - base), take = std::min(step - skip, size - done);
        // A region wider than the access takes the value zero-extended at its lane, as a bus with byte enables shows
        // it.
        io.write(base, step, (value >> (done * 8) & ones(take)) << (skip * 8));
        done += take;
    }
}

std::uint64_t AddressSpace::read(GuestPhys a, unsigned size) {
    FlatView const& flat = view();
    FlatRange const* piece = flat.find_read(a);
    if (piece && piece->range.last - a >= size - 1) [[likely]] {
        if (!piece->backing.ram) return io_read(*piece, a, size);
        std::uint64_t value = 0;
        std::memcpy(&value, piece->backing.ram->host() + piece->backing.offset + (a - piece->range.first), size);
        return value;
    }
    if (size == 1) return 0xff; // unmapped
    std::uint64_t value = 0;
    for (unsigned i = 0; i < size; ++i) value |= read(a + i, 1) << (i * 8);
    return value;
}

void AddressSpace::write(GuestPhys a, unsigned size, std::uint64_t value) {
    FlatView const& flat = view();
    FlatRange const* piece = flat.find_write(a);
    if (piece && piece->range.last - a >= size - 1) [[likely]] {
        if (!piece->backing.ram) return io_write(*piece, a, size, value);
        std::uint64_t offset = piece->backing.offset + (a - piece->range.first);
        std::memcpy(piece->backing.ram->host() + offset, &value, size);
        piece->backing.ram->written(offset, size);
        return;
    }
    if (size == 1) return; // unmapped
    for (unsigned i = 0; i < size; ++i) write(a + i, 1, value >> (i * 8) & 0xff);
}

bool AddressSpace::read_bytes(GuestPhys a, std::span<std::uint8_t> to) {
    FlatView const& flat = view();
    bool all = true;
    while (!to.empty()) {
        FlatRange const* piece = flat.find_read(a);
        if (!piece) {
            to[0] = 0xff, all = false;
            to = to.subspan(1), ++a;
            continue;
        }
        std::uint64_t chunk = std::min<std::uint64_t>(to.size() - 1, piece->range.last - a) + 1;
        if (piece->backing.ram) {
            std::memcpy(to.data(), piece->backing.ram->host() + piece->backing.offset + (a - piece->range.first),
                        chunk);
        } else {
            chunk = chunk >= 4 && !(a & 3) ? 4 : 1;
            std::uint64_t value = io_read(*piece, a, unsigned(chunk));
            std::memcpy(to.data(), &value, chunk);
        }
        to = to.subspan(chunk), a += chunk;
    }
    return all;
}

bool AddressSpace::write_bytes(GuestPhys a, std::span<std::uint8_t const> from) {
    FlatView const& flat = view();
    bool all = true;
    while (!from.empty()) {
        FlatRange const* piece = flat.find_write(a);
        if (!piece) {
            all = false;
            from = from.subspan(1), ++a;
            continue;
        }
        std::uint64_t chunk = std::min<std::uint64_t>(from.size() - 1, piece->range.last - a) + 1;
        if (piece->backing.ram) {
            std::uint64_t offset = piece->backing.offset + (a - piece->range.first);
            std::memcpy(piece->backing.ram->host() + offset, from.data(), chunk);
            piece->backing.ram->written(offset, chunk);
        } else {
            chunk = chunk >= 4 && !(a & 3) ? 4 : 1;
            std::uint64_t value = 0;
            std::memcpy(&value, from.data(), chunk);
            io_write(*piece, a, unsigned(chunk), value);
        }
        from = from.subspan(chunk), a += chunk;
    }
    return all;
}

std::uint8_t* AddressSpace::ram_pointer(GuestPhys a, std::uint64_t size, bool for_write) const {
    FlatRange const* piece = for_write ? view().find_write(a) : view().find_read(a);
    if (!piece || !piece->backing.ram || size == 0 || piece->range.last - a < size - 1) return nullptr;
    return piece->backing.ram->host() + piece->backing.offset + (a - piece->range.first);
}

void AddressSpace::ram_written(GuestPhys a, std::uint64_t size) {
    FlatRange const* piece = view().find_write(a);
    if (piece && piece->backing.ram)
        piece->backing.ram->written(piece->backing.offset + (a - piece->range.first), size);
}

std::string AddressSpace::describe() const {
    std::vector<std::pair<GuestPhys, std::string>> lines;
    for (auto const& [id, m] : mappings_) {
        char const* kind = m.backing.io ? "i/o" : m.use == MapFor::reads ? "rom" : "ram";
        lines.push_back({m.range.first, fmt::format("  {:016x}-{:016x} (prio {}, {}): {}\n", m.range.first,
                                                    m.range.last, m.priority, kind, m.name)});
    }
    std::ranges::stable_sort(lines, {}, [](auto const& l) { return l.first; });
    std::string text = "address-space: " + name_ + "\n";
    for (auto const& [a, line] : lines) text += line;
    return text;
}

} // namespace vmm
