// Export: one image, or a window of it, as an NBD server offers it: its name, flags, metadata contexts and requests.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/image.h"
#include "block/nbd/protocol.h"

#include <optional>
#include <string>
#include <vector>

namespace vmm::block::nbd {

struct ExportSettings {
    std::string name;
    std::string description;
    std::uint64_t offset = 0; // where the export begins in the image
    // nullopt: to the image's end, and on to a whole sector: zeroes follow, and only they can be written there.
    std::optional<std::uint64_t> size;
    bool read_only = false;
    bool multi_conn = false;          // tell clients that several connections see each other's writes
    bool allocation_depth = false;    // offer qemu:allocation-depth
    std::vector<std::string> bitmaps; // offer qemu:dirty-bitmap:NAME; found in the image or below it
};

// Requests are checked by the caller (the session) to lie in [0, size_bytes()). Loop thread only.
class Export {
public:
    // `image` must outlive the export. "Bitmap 'x' is not found", "... too long", a window beyond the image.
    static Result<std::unique_ptr<Export>> create(Image& image, ExportSettings settings);

    std::string const& name() const { return settings_.name; }
    std::string const& description() const { return settings_.description; }
    std::uint64_t size_bytes() const { return size_; }
    bool read_only() const { return settings_.read_only; }
    // NBD_FLAG_*, for a connection with or without structured replies.
    std::uint16_t flags(bool structured_replies) const;
    std::uint32_t minimum_block() const { return 1; }
    std::uint32_t preferred_block() const { return 4096; }
    // Names of metadata contexts; the index is the context's id on the wire.
    std::vector<std::string> const& contexts() const { return contexts_; }

    Task<Result<void>> read(std::uint64_t offset, Bytes to);
    Task<Result<void>> write(std::uint64_t offset, ConstBytes from, Durability durability);
    Task<Result<void>> flush();
    Task<Result<void>> trim(std::uint64_t offset, std::uint64_t length);
    Task<Result<void>> write_zeroes(std::uint64_t offset, std::uint64_t length, ZeroFlags flags);
    // The stretches of [offset, offset + length) in context `id`; at most `max_extents`, so perhaps not to the end.
    Task<Result<std::vector<Extent>>> extents(unsigned id, std::uint64_t offset, std::uint64_t length,
                                              std::size_t max_extents);

private:
    Export(Image& image, ExportSettings settings, std::uint64_t size, std::uint64_t stored)
        : image_(image), settings_(std::move(settings)), size_(size), stored_(stored) {}
    // How much of a request lies in the image.
    std::uint64_t inside(std::uint64_t offset, std::uint64_t length) const {
        return offset >= stored_ ? 0 : std::min(length, stored_ - offset);
    }
    struct State {
        std::uint64_t length;
        std::uint32_t flags;
    };
    Task<Result<State>> state_at(unsigned id, std::uint64_t offset, std::uint64_t length);

    Image& image_;
    ExportSettings settings_;
    std::uint64_t size_, stored_; // stored_: without what was added to the last sector
    std::vector<std::string> contexts_;
    std::vector<DirtyBitmaps*> bitmap_owners_; // as contexts_; null for the others
};

} // namespace vmm::block::nbd
