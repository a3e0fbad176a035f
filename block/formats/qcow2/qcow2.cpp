#include "block/formats/qcow2/qcow2.h"

#include "block/formats/qcow2/create.h"
#include "block/formats/qcow2/image.h"

namespace vmm::block {

namespace {

// luks_amend_options, as an option of qcow2 says them; "encrypt.iter-time" is a create option.
constexpr OptionSpec open_options[] = {
    {"lazy-refcounts", OptionType::boolean, "accepted: a commit writes all that belongs together"},
    {"pass-discard-request", OptionType::boolean, "accepted: discard=unmap passes all or nothing"},
    {"pass-discard-snapshot", OptionType::boolean, "accepted, as above"},
    {"pass-discard-other", OptionType::boolean, "accepted, as above"},
    {"overlap-check", OptionType::string, "none, constant, cached, all: the metadata that writes are checked against"},
    {"overlap-check.", OptionType::string, "template, or single areas: on, off"},
    {"cache-size", OptionType::size, "bytes for L2 tables and refcount blocks together"},
    {"l2-cache-size", OptionType::size, "bytes for L2 tables"},
    {"l2-cache-entry-size", OptionType::size, "checked and accepted: tables are cached whole"},
    {"refcount-cache-size", OptionType::size, "bytes for refcount blocks"},
    {"cache-clean-interval", OptionType::number, "accepted: caches hold no more than the image needs"},
    {"data-file.", OptionType::string, "where the guest's data lies"},
    {"encrypt.", OptionType::string, "format, key-secret"},
};

constexpr OptionSpec amend_options[] = {
    {"encrypt.state", OptionType::string, "Select new state of affected keyslots (active/inactive)"},
    {"encrypt.new-secret", OptionType::string, "New secret to set in the matching keyslots. Empty string to erase"},
    {"encrypt.old-secret", OptionType::string, "Select all keyslots that match this password"},
    {"encrypt.keyslot", OptionType::number, "Select a single keyslot to modify explicitly"},
};

int probe(ConstBytes header, std::string_view) { return qcow2::looks_like_qcow2(header) ? 100 : 0; }

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    CO_TRY_ASSIGN(std::unique_ptr<qcow2::Qcow2Image> image, co_await qcow2::Qcow2Image::open(std::move(args)));
    co_return std::unique_ptr<Image>(std::move(image));
}

} // namespace

Format qcow2_format() {
    return {.name = "qcow2",
            .probe = probe,
            .open = open,
            .create = qcow2::create_image,
            .create_options = qcow2::create_options(),
            .open_options = open_options,
            .amend_options = amend_options,
            .supports_backing = true,
            .supports_compression = true,
            .measure = qcow2::measure_image};
}

} // namespace vmm::block
