// AddressSpace: what lies where on a bus: RAM, ROM and devices, with overlaps resolved into an immutable flat view.
#pragma once
#include "vmm/base/result.h"
#include "vmm/memory/io_handler.h"
#include "vmm/memory/ram.h"

#include <atomic>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

namespace vmm {

// A checked, non-empty range; `last` is inclusive so that a range may end at 2^64-1.
struct AddressRange {
    GuestPhys first = 0, last = 0;
    static Result<AddressRange> create(GuestPhys base, std::uint64_t size);
    // For constants known to be right; asserts.
    static AddressRange of(GuestPhys base, std::uint64_t size);
    std::uint64_t size() const { return last - first + 1; } // 0 means 2^64
    bool contains(GuestPhys a) const { return first <= a && a <= last; }
};

// What answers accesses to a mapped range. Exactly one of `ram` and `io` is set.
struct Backing {
    RamBlock* ram = nullptr;
    IoHandler* io = nullptr;
    std::uint64_t offset = 0; // of the range's first byte inside the RAM block or the handler's region
    AccessRules rules{};      // io only
    static Backing of_ram(RamBlock& block, std::uint64_t offset = 0) {
        return {.ram = &block, .io = nullptr, .offset = offset, .rules = {}};
    }
    static Backing of_io(IoHandler& handler, AccessRules rules = {}) {
        return {.ram = nullptr, .io = &handler, .offset = 0, .rules = rules};
    }
};

// Which accesses a mapping catches. ROM = a `reads` mapping (writes fall through to what lies beneath, or vanish);
// PAM's "read ROM, write RAM" is a `reads` mapping above a RAM mapping.
enum class MapFor : std::uint8_t { reads = 1, writes = 2, both = 3 };

struct Mapping {
    std::string name; // for `info mtree` and messages
    AddressRange range;
    Backing backing;
    int priority = 0; // higher wins; among equals the later mapping
    MapFor use = MapFor::both;
};
using MappingId = std::uint64_t;

// One resolved piece; pieces do not overlap and are sorted.
struct FlatRange {
    AddressRange range;
    Backing backing; // offset is that of range.first
    MappingId mapping;
};
// Immutable once published.
struct FlatView {
    std::vector<FlatRange> reads, writes;
    // The piece holding `a`, or nullptr. O(log n).
    FlatRange const* find_read(GuestPhys a) const { return find(reads, a); }
    FlatRange const* find_write(GuestPhys a) const { return find(writes, a); }

private:
    static FlatRange const* find(std::vector<FlatRange> const& pieces, GuestPhys a);
};

// map/unmap/update: device lock held (or before the machine runs). Everything else: any thread; io handlers are called
// with whatever lock the caller holds, so callers other than tests hold the device lock for anything that may reach a
// device.
class AddressSpace {
public:
    // `name` is "memory" or "I/O"; `limit` the highest address.
    AddressSpace(std::string name, GuestPhys limit);
    ~AddressSpace();
    AddressSpace(AddressSpace const&) = delete;
    AddressSpace& operator=(AddressSpace const&) = delete;

    MappingId map(Mapping mapping);
    void unmap(MappingId id);
    // Moves, shrinks or re-prioritises a mapping in one step.
    void update(MappingId id, Mapping mapping);
    // Several map/unmap/update calls as one change of the view.
    class Batch {
    public:
        explicit Batch(AddressSpace& space) : space_(space) { ++space_.batch_depth_; }
        ~Batch() {
            if (--space_.batch_depth_ == 0) space_.rebuild();
        }
        Batch(Batch const&) = delete;
        Batch& operator=(Batch const&) = delete;

    private:
        AddressSpace& space_;
    };

    // The current view. The reference stays valid until reclaim(); reload it after a listener call.
    FlatView const& view() const { return *view_.load(std::memory_order_acquire); }
    // Old views that readers on other threads may still hold. A guest can make many (by flipping PAM or BARs): the
    // owner calls reclaim() now and then, at a moment when nobody else is using a view.
    std::size_t retired_views() const { return views_.size() - 1; }
    void reclaim();

    // Called after each change of the view, in order of registration; returns a token for remove_listener.
    using Listener = std::function<void()>;
    unsigned add_listener(Listener listener);
    void remove_listener(unsigned token);
    // Tells listeners that engines must forget cached translations (dirty logging was switched or pages were cleaned).
    void notify_dirty_log_changed() { notify(); }

    // Accesses by anyone but a CPU's fast path. Unmapped bytes read as ones and swallow writes. Sizes 1, 2, 4, 8; may
    // cross pieces and be unaligned.
    std::uint64_t read(GuestPhys a, unsigned size);
    void write(GuestPhys a, unsigned size, std::uint64_t value);
    // Bulk copies; device regions are accessed in the largest sizes their rules allow. False when some byte was
    // unmapped.
    bool read_bytes(GuestPhys a, std::span<std::uint8_t> to);
    bool write_bytes(GuestPhys a, std::span<std::uint8_t const> from);

    // Host pointer for [a, a+size) if that is one contiguous piece of RAM readable (and, with for_write, writable);
    // else nullptr. After writing through it call ram_written.
    std::uint8_t* ram_pointer(GuestPhys a, std::uint64_t size, bool for_write) const;
    void ram_written(GuestPhys a, std::uint64_t size);

    std::string const& name() const { return name_; }
    // Mappings by priority and address, one a line, as `info mtree` prints them.
    std::string describe() const;

    // Applies a region's rules to one access that lies inside it. Public for engines that have found the piece already.
    static std::uint64_t io_read(FlatRange const& piece, GuestPhys a, unsigned size);
    static void io_write(FlatRange const& piece, GuestPhys a, unsigned size, std::uint64_t value);

private:
    void rebuild();
    void notify();
    std::vector<FlatRange> flatten(MapFor use) const;

    std::string name_;
    GuestPhys limit_;
    std::map<MappingId, Mapping> mappings_; // id order = age
    MappingId next_id_ = 1;
    unsigned batch_depth_ = 0;
    std::list<FlatView> views_;
    std::atomic<FlatView const*> view_;
    std::map<unsigned, Listener> listeners_;
    unsigned next_listener_ = 1;
};

// Device-side memory access (bus mastering). Implemented by AddressSpace adapters; a fake in tests.
class DmaSpace {
public:
    virtual ~DmaSpace() = default;
    virtual bool read(GuestPhys a, std::span<std::uint8_t> to) = 0;
    virtual bool write(GuestPhys a, std::span<std::uint8_t const> from) = 0;
};

} // namespace vmm
