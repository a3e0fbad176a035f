#include "devices/platform/fw_cfg.h"

#include "vmm/base/endian.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace vmm::dev {

namespace {
constexpr std::uint32_t id_traditional = 1, id_dma = 2;
constexpr std::uint64_t dma_signature = 0x51454d5520434647; // "QEMU CFG"
enum : std::uint32_t { dma_error = 1, dma_read = 2, dma_skip = 4, dma_select = 8, dma_write = 16 };
constexpr std::size_t chunk_size = 64 * 1024;

// Guest memory: what the address in the DMA registers points at.
struct DmaAccess {
    be32 control;
    be32 length;
    be64 address;
};
static_assert(sizeof(DmaAccess) == 16);

struct DirectoryEntry {
    be32 size;
    be16 key;
    be16 reserved;
    char name[56];
};
static_assert(sizeof(DirectoryEntry) == 64);

template <class T> void append(std::vector<std::uint8_t>& to, T const& value) {
    auto const* bytes = reinterpret_cast<std::uint8_t const*>(&value);
    to.insert(to.end(), bytes, bytes + sizeof value);
}
} // namespace

template <class V> void fields(V& v, FwCfg::State& s) {
    v.field("selected", s.selected);
    v.field("offset", s.offset);
    v.field("dma_high", s.dma_high);
    v.field("written", s.written);
}

FwCfg::FwCfg(Needs needs) : needs_(needs) {
    items_[key_signature] = {'Q', 'E', 'M', 'U'};
    append(items_[key_id], le32(id_traditional | id_dma));
    build_directory();
}

void FwCfg::set_item(std::uint16_t key, std::vector<std::uint8_t> data) {
    VMM_ASSERT(key != key_file_directory && key < key_first_file + max_files);
    items_[key] = std::move(data);
}

Result<void> FwCfg::add_file(std::string name, std::vector<std::uint8_t> data) {
    return add(std::move(name), {.data = std::move(data)});
}

Result<void> FwCfg::add_writable_file(std::string name, std::vector<std::uint8_t> data,
                                      std::function<void(std::vector<std::uint8_t> const&)> on_write) {
    return add(std::move(name), {.data = std::move(data), .writable = true, .on_write = std::move(on_write)});
}

Result<void> FwCfg::add(std::string name, File file) {
    if (name.empty() || name.size() > max_name)
        return error("fw_cfg file name '{}' is not 1 to {} characters long", name, max_name);
    if (files_.size() == max_files)
        return error("fw_cfg file '{}' is one more than the {} there can be", name, max_files);
    if (file.data.size() > UINT32_MAX) return error("fw_cfg file '{}' is larger than 4 GiB", name);
    if (!files_.emplace(name, std::move(file)).second) return error("fw_cfg file '{}' exists already", name);
    build_directory();
    return {};
}

std::vector<std::uint8_t> const* FwCfg::file(std::string const& name) const {
    auto it = files_.find(name);
    return it == files_.end() ? nullptr : &it->second.data;
}

void FwCfg::build_directory() {
    std::vector<std::uint8_t>& directory = items_[key_file_directory];
    directory.clear();
    append(directory, be32(std::uint32_t(files_.size())));
    std::uint16_t key = key_first_file;
    for (auto const& [name, file] : files_) {
        DirectoryEntry entry{};
        entry.size = std::uint32_t(file.data.size());
        entry.key = key++;
        std::memcpy(entry.name, name.data(), name.size());
        append(directory, entry);
    }
}

FwCfg::File* FwCfg::selected_file() {
    unsigned index = state_.selected - unsigned(key_first_file);
    return index < files_.size() ? &std::next(files_.begin(), index)->second : nullptr;
}

std::vector<std::uint8_t> const* FwCfg::selected_data() {
    if (File* selected = selected_file()) return &selected->data;
    auto it = items_.find(state_.selected);
    return it == items_.end() ? nullptr : &it->second;
}

void FwCfg::select(std::uint16_t key) {
    state_.selected = key;
    state_.offset = 0;
}

// Past the end of an item, and in one that does not exist, all is zero.
std::uint8_t FwCfg::read_byte() {
    auto const* data = selected_data();
    if (!data || state_.offset >= data->size()) return 0;
    return (*data)[state_.offset++];
}

std::uint64_t FwCfg::Ports::read(std::uint64_t offset, unsigned size) {
    return offset == 1 && size == 1 ? device.read_byte() : 0;
}

void FwCfg::Ports::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (offset == 0 && size == 2) device.select(std::uint16_t(value)); // writing data is by DMA only
}

std::uint64_t FwCfg::Dma::read(std::uint64_t offset, unsigned size) {
    if (size != 4) return 0;
    return byte_swap(std::uint32_t(offset < 4 ? dma_signature >> 32 : dma_signature));
}

void FwCfg::Dma::write(std::uint64_t offset, unsigned size, std::uint64_t value) {
    if (size != 4) return;
    std::uint32_t half = byte_swap(std::uint32_t(value));
    if (offset < 4) {
        device.state_.dma_high = half;
        return;
    }
    GuestPhys structure = GuestPhys(device.state_.dma_high) << 32 | half;
    device.state_.dma_high = 0;
    device.run_dma(structure);
}

void FwCfg::run_dma(GuestPhys structure) {
    DmaAccess access; // copied in once: the guest may change it meanwhile
    std::span<std::uint8_t> bytes(reinterpret_cast<std::uint8_t*>(&access), sizeof access);
    if (!needs_.memory.read(structure, bytes)) {
        needs_.log.guest_error("fw_cfg: the DMA structure at {:#x} is not in memory", structure);
        return;
    }
    bool done = transfer(access.control, access.length, access.address);
    be32 result = done ? 0u : std::uint32_t(dma_error);
    needs_.memory.write(structure, {reinterpret_cast<std::uint8_t const*>(&result), sizeof result});
}

bool FwCfg::transfer(std::uint32_t control, std::uint32_t length, GuestPhys address) {
    if (control & dma_select) select(std::uint16_t(control >> 16));
    if (control & dma_read) return transfer_read(length, address);
    if (control & dma_write) return transfer_write(length, address);
    if (control & dma_skip) {
        auto const* data = selected_data();
        std::size_t size = data ? data->size() : 0;
        state_.offset = std::uint32_t(std::min<std::uint64_t>(size, std::uint64_t(state_.offset) + length));
    }
    return true;
}

bool FwCfg::transfer_read(std::uint32_t length, GuestPhys address) {
    std::vector<std::uint8_t> buffer(std::min<std::size_t>(length, chunk_size));
    while (length) {
        std::size_t part = std::min<std::size_t>(length, chunk_size), have = 0;
        auto const* data = selected_data();
        if (data && state_.offset < data->size()) have = std::min(part, data->size() - state_.offset);
        if (have) std::memcpy(buffer.data(), data->data() + state_.offset, have);
        std::fill(buffer.begin() + std::ptrdiff_t(have), buffer.begin() + std::ptrdiff_t(part), 0);
        if (!needs_.memory.write(address, std::span(buffer).first(part))) return false;
        state_.offset += std::uint32_t(have);
        address += part;
        length -= std::uint32_t(part);
    }
    return true;
}

bool FwCfg::transfer_write(std::uint32_t length, GuestPhys address) {
    File* target = selected_file();
    if (!target || !target->writable) return false;
    std::size_t size = target->data.size();
    if (state_.offset > size || length > size - state_.offset) return false;
    std::vector<std::uint8_t> buffer(length);
    if (!needs_.memory.read(address, buffer)) return false;
    std::ranges::copy(buffer, target->data.begin() + state_.offset);
    state_.offset += length;
    if (target->on_write) target->on_write(target->data);
    return true;
}

void FwCfg::reset() { state_ = State{}; }

std::vector<std::uint8_t> FwCfg::written_contents() const {
    std::vector<std::uint8_t> all;
    for (auto const& [name, file] : files_)
        if (file.writable) all.insert(all.end(), file.data.begin(), file.data.end());
    return all;
}

void FwCfg::save(StateWriter& to) const {
    State state = state_;
    state.written = written_contents();
    save_state(to, state);
}

Result<void> FwCfg::load(StateReader& from) {
    State loaded = TRY(load_state<State>(from));
    if (loaded.written.size() != written_contents().size())
        return error("the saved fw_cfg files have other sizes than this machine's");
    auto next = loaded.written.begin();
    for (auto& [name, file] : files_) {
        if (!file.writable) continue;
        std::copy_n(next, file.data.size(), file.data.begin());
        next += std::ptrdiff_t(file.data.size());
        if (file.on_write) file.on_write(file.data);
    }
    loaded.written.clear();
    state_ = std::move(loaded);
    return {};
}

} // namespace vmm::dev
