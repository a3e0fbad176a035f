#include "block/formats/cow/header.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <cstring>

namespace vmm::block::cow {

namespace {

constexpr std::uint32_t magic = 0x4f4f4f4d;
constexpr std::uint32_t sector_bytes = 512;

// Fields of one header version: where they are.
struct Fields {
    std::size_t backing, backing_size, size, sector_size, bytes;
};
constexpr Fields version_1 = {8, 256, 268, 276, 280};
constexpr Fields version_2_packed = {8, 1024, 1036, 1044, 1048};  // user-mode Linux
constexpr Fields version_2_aligned = {8, 1024, 1040, 1048, 1056}; // QEMU, and user-mode Linux on 64-bit hosts
constexpr Fields version_3 = {32, 4096, 12, 20, 4128};

class Reader {
public:
    Reader(ConstBytes header, bool little) : header_(header), little_(little) {}
    std::uint32_t u32(std::size_t at) const { return number<std::uint32_t>(at); }
    std::uint64_t u64(std::size_t at) const { return number<std::uint64_t>(at); }

private:
    template <class T> T number(std::size_t at) const {
        if (at + sizeof(T) > header_.size()) return 0;
        T value = load_le<T>(header_.data() + at);
        return little_ ? value : byte_swap(value);
    }
    ConstBytes header_;
    bool little_;
};

} // namespace

bool is_cow(ConstBytes header) {
    if (header.size() < 8) return false;
    std::uint32_t first = load_le<std::uint32_t>(header.data());
    bool little = first == magic;
    if (!little && byte_swap(first) != magic) return false;
    std::uint32_t version = Reader(header, little).u32(4);
    return version >= 1 && version <= 3;
}

Result<Layout> decode(ConstBytes header, std::string const& filename) {
    if (!is_cow(header)) return error("Could not open '{}': Image not in cow format", filename);
    Reader reader(header, load_le<std::uint32_t>(header.data()) == magic);
    std::uint32_t version = reader.u32(4);
    bool aligned = reader.u32(version_2_aligned.sector_size) == sector_bytes &&
                   reader.u32(version_2_packed.sector_size) != sector_bytes;
    Fields f = version == 1 ? version_1 : version == 3 ? version_3 : aligned ? version_2_aligned : version_2_packed;
    if (header.size() < f.bytes) return error("Could not open '{}': cow header is cut off", filename);
    auto bad = [&](std::string_view field, std::uint64_t value, std::string_view why) {
        return error("Could not open '{}': cow header field {} is {}: {}", filename, field, value, why);
    };
    if (reader.u32(f.sector_size) != sector_bytes) return bad("sectorsize", reader.u32(f.sector_size), "must be 512");
    std::uint64_t alignment = version == 3 ? reader.u32(24) : sector_bytes;
    if (!is_power_of_two(alignment) || alignment < sector_bytes || alignment > MiB)
        return bad("alignment", alignment, "must be a power of two from 512 to 1048576");
    Layout layout;
    layout.size = reader.u64(f.size);
    if (layout.size / (sector_bytes * 8) > max_bitmap_bytes - 1) return bad("size", layout.size, "too large");
    auto name = reinterpret_cast<char const*>(header.data() + f.backing);
    layout.backing.assign(name, strnlen(name, f.backing_size));
    layout.bitmap_offset = version == 3 ? align_up<std::uint64_t>(f.bytes, alignment) : f.bytes;
    std::uint64_t bitmap_bytes = div_ceil<std::uint64_t>(div_ceil<std::uint64_t>(layout.size, sector_bytes), 8);
    layout.data_offset = align_up(layout.bitmap_offset + bitmap_bytes, alignment);
    return layout;
}

} // namespace vmm::block::cow
