#include "vmm/base/fields.h"

#include "vmm/base/endian.h"

#include <cstring>

namespace vmm {

void StateWriter::raw(std::string_view name, void const* data, std::size_t element_size, std::size_t count) {
    std::string full = prefix_ + std::string(name);
    VMM_ASSERT(full.size() < 256 && element_size < 256 && count <= StateReader::max_elements);
    bytes_.push_back(std::uint8_t(full.size()));
    bytes_.insert(bytes_.end(), full.begin(), full.end());
    bytes_.push_back(std::uint8_t(element_size));
    std::uint8_t n[4];
    store_le<std::uint32_t>(n, std::uint32_t(count));
    bytes_.insert(bytes_.end(), n, n + 4);
    static_assert(std::endian::native == std::endian::little, "add byte swapping for big-endian hosts");
    auto const* from = static_cast<std::uint8_t const*>(data);
    if (count) bytes_.insert(bytes_.end(), from, from + element_size * count);
}

StateReader::StateReader(std::span<std::uint8_t const> bytes, unsigned version) : version_(version) {
    while (!bytes.empty()) {
        std::size_t name_size = bytes[0];
        if (bytes.size() < 1 + name_size + 5) {
            error_ = "the state ends inside a field header";
            return;
        }
        Entry entry{.name = std::string(reinterpret_cast<char const*>(bytes.data() + 1), name_size),
                    .element_size = bytes[1 + name_size],
                    .count = load_le<std::uint32_t>(bytes.data() + 2 + name_size),
                    .data = {}};
        bytes = bytes.subspan(1 + name_size + 5);
        std::uint64_t size = std::uint64_t(entry.element_size) * entry.count;
        if (size > bytes.size() || entry.element_size == 0) {
            error_ = fmt::format("the state ends inside field '{}'", entry.name);
            return;
        }
        entry.data = bytes.first(size);
        bytes = bytes.subspan(size);
        entries_.push_back(std::move(entry));
    }
}

StateReader::Entry* StateReader::find(std::string const& full_name) {
    for (std::size_t i = 0; i < entries_.size(); ++i) {
        std::size_t at = (next_ + i) % entries_.size();
        if (entries_[at].name == full_name && !entries_[at].used) {
            next_ = at + 1;
            return &entries_[at];
        }
    }
    return nullptr;
}

void StateReader::refuse(std::string_view name, std::string_view why) {
    if (error_.empty()) error_ = fmt::format("field '{}{}': {}", prefix_, name, why);
}

std::size_t StateReader::count_of(std::string_view name, std::size_t element_size, Since since) {
    if (since.version > version_) return 0;
    for (Entry const& entry : entries_)
        if (entry.name == prefix_ + std::string(name))
            return entry.element_size == element_size && entry.count <= max_elements ? entry.count : 0;
    return 0;
}

void StateReader::consume(std::string_view name) {
    if (Entry* entry = find(prefix_ + std::string(name))) {
        entry->used = true;
        if (entry->count != 0) refuse(name, "has elements of another size or too many");
    } else {
        refuse(name, "is missing");
    }
}

void StateReader::raw(std::string_view name, void* data, std::size_t element_size, std::size_t count, Since since) {
    if (since.version > version_) return;
    Entry* entry = find(prefix_ + std::string(name));
    if (!entry) return refuse(name, "is missing");
    entry->used = true;
    if (entry->element_size != element_size || entry->count != count)
        return refuse(name, fmt::format("has {} elements of {} bytes where {} of {} were expected", entry->count,
                                        entry->element_size, count, element_size));
    std::memcpy(data, entry->data.data(), entry->data.size());
}

Result<void> StateReader::finish() const {
    if (!error_.empty()) return error("{}", error_);
    for (Entry const& entry : entries_)
        if (!entry.used && !entry.name.starts_with('?')) return error("field '{}' is unknown here", entry.name);
    return {};
}

} // namespace vmm
