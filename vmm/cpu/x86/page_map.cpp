#include "vmm/cpu/x86/page_map.h"

namespace vmm::x86 {

namespace {

constexpr std::uint64_t present = 1, writable = 2, user = 4, page_size_bit = 0x80;

// The shape of the tables in one paging mode (SDM vol. 3 4.2).
struct Shape {
    unsigned levels, index_bits, entry_bytes;
    bool large(unsigned level, State const& s) const {
        if (level == 3) return levels >= 4; // 1 GiB; in PAE mode the bit is reserved
        return level == 2 && (entry_bytes == 8 || (s.cr4 & cr4::pse));
    }
};

Shape shape_of(State const& s) {
    if (s.long_mode()) return {s.cr4 & cr4::la57 ? 5u : 4u, 9, 8};
    if (s.cr4 & cr4::pae) return {3, 9, 8};
    return {2, 10, 4};
}

class Lister {
public:
    Lister(State const& state, ReadTable const& read) : state_(state), read_(read), shape_(shape_of(state)) {}

    PageMap list() {
        std::uint64_t root = state_.cr3 & (shape_.levels == 3 ? 0xffffffe0 : 0xffffffffff000);
        table(root, shape_.levels, 0, true, true);
        return std::move(map_);
    }

private:
    void table(std::uint64_t at, unsigned level, std::uint64_t base, bool is_user, bool is_writable) {
        bool pdpt_of_pae = shape_.levels == 3 && level == 3;
        unsigned count = pdpt_of_pae ? 4 : 1u << shape_.index_bits, shift = 12 + (level - 1) * shape_.index_bits;
        for (unsigned i = 0; i < count && map_.whole; ++i) {
            auto entry = read_(at + i * shape_.entry_bytes, shape_.entry_bytes);
            if (++entries_ > max_map_entries) map_.whole = false;
            if (!entry || !(*entry & present)) continue;
            std::uint64_t linear = base | std::uint64_t(i) << shift;
            if (level == shape_.levels && level >= 4 && i >= count / 2) linear |= ~std::uint64_t(0) << (shift + 9);
            // The entries of a PAE root say nothing of rights.
            bool u = is_user && (pdpt_of_pae || (*entry & user)),
                 w = is_writable && (pdpt_of_pae || (*entry & writable));
            if (level == 1 || ((*entry & page_size_bit) && shape_.large(level, state_)))
                add(linear, linear + ((std::uint64_t(1) << shift) - 1), u, w);
            else
                table(*entry & (shape_.entry_bytes == 4 ? 0xfffff000 : 0xffffffffff000), level - 1, linear, u, w);
        }
    }

    void add(std::uint64_t first, std::uint64_t last, bool is_user, bool is_writable) {
        if (!map_.ranges.empty()) {
            MappedRange& before = map_.ranges.back();
            if (before.last + 1 == first && before.user == is_user && before.writable == is_writable) {
                before.last = last;
                return;
            }
        }
        if (map_.ranges.size() == max_map_ranges) {
            map_.whole = false;
            return;
        }
        map_.ranges.push_back({first, last, is_user, is_writable});
    }

    State const& state_;
    ReadTable const& read_;
    Shape shape_;
    PageMap map_;
    unsigned entries_ = 0;
};

} // namespace

PageMap list_pages(State const& state, ReadTable const& read) { return Lister(state, read).list(); }

} // namespace vmm::x86
