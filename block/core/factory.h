// The tables of formats and protocols, and open_image / create_image, the only ways to get an image.
#pragma once
#include "block/core/context.h"
#include "block/core/image.h"
#include "block/core/open_options.h"
#include "block/core/option_values.h"

#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::block {

// What a format's open() gets. Passed by value; `context` outlives the image.
struct FormatOpenArgs {
    BlockContext& context;
    std::unique_ptr<BlockDevice>
        file;             // becomes the image's; limits() may ask for alignment 1 only (the factory bounces)
    std::string filename; // the protocol-level name, for messages and for finding sibling files
    OpenOptions options;  // options.tree holds the driver's own options (without "file." ones)
};

// What a format's create() gets: a file name to create, and its options checked against create_options, defaults added.
struct CreateRequest {
    std::string filename;
    std::uint64_t size_bytes = 0; // "size", already taken from the backing image when it was not given
    OptionValues options;
    OptionValues file_options; // what is for the protocol beneath, for create_file()
    CacheMode cache = CacheMode::writeback;
};

// A format driver. All function pointers may be null except open; names are QEMU's.
struct Format {
    std::string_view name;
    // 0: not mine; 100: certain. `header` is the first bytes (at most probe_bytes) of the file.
    int (*probe)(ConstBytes header, std::string_view filename) = nullptr;
    // Not a coroutine itself where that would keep references: args is moved in.
    Task<Result<std::unique_ptr<Image>>> (*open)(FormatOpenArgs args) = nullptr;
    Task<Result<void>> (*create)(BlockContext& context, CreateRequest request) = nullptr;
    std::span<OptionSpec const> create_options = {};
    std::span<OptionSpec const> open_options = {};  // beside the common ones and those of the file and backing file
    std::span<OptionSpec const> amend_options = {}; // beside the create options marked as amendable
    bool supports_backing = false;
    bool supports_compression = false;
    bool needs_file = true; // false: the driver opens no file (null-co)
    // `measure`: bytes for an image of `size`, of which `allocated` hold data.
    struct Measure {
        std::uint64_t required = 0, fully_allocated = 0, bitmaps = 0;
        bool has_bitmaps = false;
    };
    Result<Measure> (*measure)(std::uint64_t size, std::uint64_t allocated, OptionValues const& options) = nullptr;
};

// A protocol driver: what lies under a format. `filename` is what follows "name:" (or the whole path for file).
struct Protocol {
    std::string_view name;
    // Takes the whole filename when true ("nbd://..", "nbd:..", "nbd+unix://.." for nbd); plain paths are "file".
    bool (*matches)(std::string_view filename) = nullptr;
    Task<Result<std::unique_ptr<BlockDevice>>> (*open)(BlockContext& context, OpenOptions options) = nullptr;
    // Makes an empty file of `size`, or takes one that is there (existing_target.h); null: cannot ("Protocol driver 'x'
    // does not support image creation").
    Task<Result<void>> (*create)(BlockContext& context, std::string filename, std::uint64_t size,
                                 OptionValues options) = nullptr;
    std::span<OptionSpec const> create_options = {};
    std::span<OptionSpec const> open_options = {}; // beside the common ones
};

inline constexpr std::size_t probe_bytes = 2048;

// The drivers a program knows. Built once by default_formats() (block/formats/default_formats.h); later only read.
class FormatTable {
public:
    void add(Format format) { formats_.push_back(format); }
    void add(Protocol protocol) { protocols_.push_back(protocol); }
    std::span<Format const> formats() const { return formats_; }
    std::span<Protocol const> protocols() const { return protocols_; }
    // The names of all formats, and of all protocols; "\nDid you mean 'X'?" if `word` is near one, else nothing.
    std::string suggest(std::string_view word) const;
    Format const* find(std::string_view name) const;
    Protocol const* find_protocol(std::string_view name) const;
    // The best score wins; raw scores 1 for anything.
    Format const* probe(ConstBytes header, std::string_view filename) const;
    // The protocol of a file name: "nbd:...", a path. "Unknown protocol 'x'" for "x:..." that no protocol takes (a path
    // that exists as such, or holds a '/' before the ':', is a path).
    Result<Protocol const*> protocol_for(std::string_view filename) const;

private:
    std::vector<Format> formats_;
    std::vector<Protocol> protocols_;
};

// Longest backing chain.
inline constexpr unsigned max_chain_depth = 200;

// Opens options.filename (or tree) and its backing chain. Errors are QEMU's text ("Could not open 'x': No such file or
// directory", without the program's name).
Task<Result<std::unique_ptr<Image>>> open_image(BlockContext& context, OpenOptions options);
// The protocol level alone (options.format: the protocol's name, or empty: by file name), e.g. for a format's sibling
// files; requests of any alignment are taken care of.
Task<Result<std::unique_ptr<BlockDevice>>> open_protocol(BlockContext& context, OpenOptions options);
// Creates (or truncates) a file and opens it read-write: the first step of every format's create(). "size" 0: empty.
// `options` are the protocol's.
Task<Result<std::unique_ptr<BlockDevice>>> create_file(BlockContext& context, std::string filename,
                                                       std::uint64_t size = 0, OptionValues options = {});
// The backing name `reference` as seen from the image `overlay`: absolute and protocol names stay, others are relative
// to the overlay's directory.
std::string resolve_backing_filename(std::string_view overlay, std::string_view reference);
// `image` and everything under it closed, in order; the first error.
Task<Result<void>> close_image(std::unique_ptr<Image> image);

// The 3 lines QEMU prints when probing guessed raw, with the option that avoids it.
std::string raw_probe_warning(std::string_view filename);

} // namespace vmm::block
