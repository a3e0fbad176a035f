#include "block/formats/vhdx/log.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <optional>

namespace vmm::block::vhdx {

namespace {

constexpr std::uint32_t sector_bytes = 4096;
constexpr std::size_t max_heads_tried = 16; // a torn write leaves one bad head; a hostile log could hold thousands
constexpr std::uint64_t max_file_bytes = std::uint64_t(1) << 47; // twice the largest disk

struct EntryHeader { // 2.3.1.1
    std::array<char, 4> signature;
    le32 checksum, length, tail;
    le64 sequence;
    le32 descriptors, reserved;
    Guid log_id;
    le64 flushed_file_offset, last_file_offset;
};
static_assert(sizeof(EntryHeader) == 64);

struct Descriptor { // 2.3.1.2 and 2.3.1.3
    std::array<char, 4> signature;
    le32 trailing; // data: its last 4 bytes
    le64 leading;  // data: its first 8 bytes; zero: how many bytes
    le64 file_offset, sequence;
};
static_assert(sizeof(Descriptor) == 32);

struct DataSector { // 2.3.1.4
    std::array<char, 4> signature;
    le32 sequence_high;
    std::array<std::uint8_t, 4084> data;
    le32 sequence_low;
};
static_assert(sizeof(DataSector) == sector_bytes);

// The log is a ring.
std::vector<std::uint8_t> ring_bytes(ConstBytes log, std::uint64_t offset, std::uint64_t length) {
    std::vector<std::uint8_t> out(length);
    std::uint64_t head = std::min(length, log.size() - offset);
    std::memcpy(out.data(), log.data() + offset, head);
    std::memcpy(out.data() + head, log.data(), length - head);
    return out;
}

struct Entry {
    EntryHeader header;
    std::vector<std::uint8_t> bytes;
};

template <class T> T read_at(ConstBytes bytes, std::size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}

// The header at `offset` when it may begin an entry of this log; cheap enough to be tried at every sector.
std::optional<EntryHeader> header_at(ConstBytes log, std::uint64_t offset, Guid const& id) {
    auto h = read_at<EntryHeader>(log, offset);
    if (std::string_view(h.signature.data(), 4) != "loge" || h.log_id != id || h.sequence == 0) return std::nullopt;
    if (h.length == 0 || h.length % sector_bytes || h.length > log.size()) return std::nullopt;
    if (h.tail % sector_bytes || h.tail >= log.size()) return std::nullopt;
    if (sizeof h + std::uint64_t(h.descriptors) * sizeof(Descriptor) > h.length) return std::nullopt;
    return h;
}

std::optional<Entry> entry_at(ConstBytes log, std::uint64_t offset, Guid const& id) {
    auto header = header_at(log, offset, id);
    if (!header) return std::nullopt;
    Entry entry{*header, ring_bytes(log, offset, header->length)};
    if (checksum_of(entry.bytes) != header->checksum) return std::nullopt;
    return entry;
}

Result<void> apply(Entry const& entry, std::vector<Patch>& patches, std::string const& filename) {
    std::uint64_t data = (sizeof(EntryHeader) + entry.header.descriptors * sizeof(Descriptor) + sector_bytes - 1) /
                         sector_bytes * sector_bytes;
    auto bad = [&](std::string_view why) { return error("Could not open '{}': VHDX log: {}", filename, why); };
    for (std::uint32_t i = 0; i < entry.header.descriptors; ++i) {
        auto d = read_at<Descriptor>(entry.bytes, sizeof(EntryHeader) + i * sizeof(Descriptor));
        std::string_view signature(d.signature.data(), 4);
        if (d.sequence != entry.header.sequence) return bad("a descriptor has the wrong SequenceNumber");
        if (d.file_offset % sector_bytes || d.file_offset > max_file_bytes) return bad("FileOffset is out of range");
        if (signature == "zero") {
            if (d.leading % sector_bytes || d.leading > max_file_bytes) return bad("ZeroLength is out of range");
            patches.push_back({d.file_offset, d.leading, {}});
            continue;
        }
        if (signature != "desc") return bad("a descriptor has an unknown signature");
        if (data + sector_bytes > entry.bytes.size()) return bad("an entry is too short for its data");
        auto sector = read_at<DataSector>(entry.bytes, data);
        std::uint64_t sequence = std::uint64_t(sector.sequence_high) << 32 | sector.sequence_low;
        if (std::string_view(sector.signature.data(), 4) != "data" || sequence != entry.header.sequence)
            return bad("a data sector is damaged");
        Patch patch{d.file_offset, sector_bytes, std::vector<std::uint8_t>(sector_bytes)};
        std::memcpy(patch.bytes.data(), &d.leading, 8);
        std::memcpy(patch.bytes.data() + 8, sector.data.data(), sector.data.size());
        std::memcpy(patch.bytes.data() + sector_bytes - 4, &d.trailing, 4);
        patches.push_back(std::move(patch));
        data += sector_bytes;
    }
    return {};
}

class PatchedFile final : public BlockDevice {
public:
    PatchedFile(std::unique_ptr<BlockDevice> file, std::vector<Patch> patches)
        : file_(std::move(file)), patches_(std::move(patches)) {}
    std::uint64_t size_bytes() const override {
        std::uint64_t end = file_->size_bytes();
        for (Patch const& patch : patches_) end = std::max(end, patch.offset + patch.length);
        return end;
    }
    bool read_only() const override { return true; }
    Limits limits() const override { return file_->limits(); }
    Capabilities capabilities() override { return {}; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        CO_TRY(co_await file_->read(offset, to));
        std::uint64_t end = offset + to.size_bytes();
        for (Patch const& patch : patches_) {
            std::uint64_t first = std::max(offset, patch.offset), last = std::min(end, patch.offset + patch.length);
            if (first >= last) continue;
            if (patch.bytes.empty())
                zero_spans(to, first - offset, last - first);
            else
                copy_to_spans(to, first - offset, ConstBytes(patch.bytes).subspan(first - patch.offset, last - first));
        }
        co_return Result<void>{};
    }
    Task<Result<void>> write(std::uint64_t, ConstIoSpans, Durability) override {
        co_return Error("Operation not permitted", EPERM);
    }
    Task<Result<void>> flush() override { co_return Result<void>{}; }

private:
    std::unique_ptr<BlockDevice> file_;
    std::vector<Patch> patches_; // later ones win
};

} // namespace

Result<std::vector<Patch>> replay_log(ConstBytes log, Guid const& id, std::string const& filename) {
    // The newest valid entry is the head of the active sequence and says where its tail is (2.3.2). Every entry between
    // must be valid too; else an older head is tried.
    std::vector<std::pair<std::uint64_t, std::uint64_t>> heads; // (sequence, offset)
    for (std::uint64_t at = 0; at + sector_bytes <= log.size(); at += sector_bytes)
        if (auto header = header_at(log, at, id)) heads.push_back({header->sequence, at});
    std::ranges::sort(heads, std::greater<>());
    if (heads.size() > max_heads_tried) heads.resize(max_heads_tried);
    for (auto [sequence, offset] : heads) {
        auto head = entry_at(log, offset, id);
        if (!head) continue;
        std::vector<Patch> patches;
        std::uint64_t at = head->header.tail;
        std::optional<std::uint64_t> expected;
        for (std::uint64_t seen = 0; seen < log.size();) {
            auto entry = entry_at(log, at, id);
            if (!entry || (expected && entry->header.sequence != *expected)) break;
            TRY(apply(*entry, patches, filename));
            if (at == offset) return patches;
            expected = entry->header.sequence + 1;
            seen += entry->header.length;
            at = (at + entry->header.length) % log.size();
        }
    }
    return std::vector<Patch>{};
}

std::unique_ptr<BlockDevice> patched_file(std::unique_ptr<BlockDevice> file, std::vector<Patch> patches) {
    return std::make_unique<PatchedFile>(std::move(file), std::move(patches));
}

} // namespace vmm::block::vhdx
