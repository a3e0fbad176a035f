// Changing an existing image: its backing file's name, and the options `amend` may change.
#include "block/crypto/luks_options.h"
#include "block/formats/qcow2/create.h"
#include "block/formats/qcow2/image.h"
#include "vmm/base/checked.h"

#include <algorithm>
#include <bit>
#include <cerrno>

namespace vmm::block::qcow2 {

Task<Result<void>> Qcow2Image::change_backing(std::string filename, std::string format) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    if (!filename.empty() && store_->header().raw_external_data())
        co_return Error("Backing file and data-file-raw cannot be used at the same time", EINVAL);
    CO_TRY(co_await store_->commit());
    Header const before = store_->header();
    store_->header().backing_file = std::move(filename);
    store_->header().backing_format.reset();
    if (!store_->header().backing_file.empty() && !format.empty()) store_->header().backing_format = std::move(format);
    Result<void> result = co_await store_->write_header();
    if (!result.ok()) store_->header() = before;
    co_return result;
}

namespace {

// Options that only `create` knows, or that we cannot change in place.
Result<void> check_unchanged(OptionValues const& changes) {
    for (char const* name : {"cluster_size", "preallocation", "extended_l2", "compression_type", "encryption"})
        if (changes.has(name))
            return Error(fmt::format("Unknown option '{}' for amend: it cannot be changed", name), ENOTSUP);
    return {};
}

// log2 of the refcount width the image is to have.
Result<unsigned> wanted_refcount_order(OptionValues const& changes, Header const& h, std::uint32_t version) {
    std::uint64_t const bits = TRY(changes.number("refcount_bits", std::uint64_t(1) << h.refcount_order));
    if (!is_power_of_two(bits) || bits > 64)
        return Error("Refcount width must be a power of two and may not exceed 64 bits", EINVAL);
    if (bits != std::uint64_t(1) << h.refcount_order && bits != 16 && version < 3)
        return Error("Refcount widths other than 16 bits require compatibility level 1.1 or above (use compat=1.1 or "
                     "greater)",
                     EINVAL);
    return unsigned(std::countr_zero(bits));
}

Result<void> check_downgrade(Header const& h) {
    if (h.refcount_order != 4) return Error("compat=0.10 requires refcount_bits=16", ENOTSUP);
    if (h.external_data()) return Error("Cannot downgrade an image with a data file", ENOTSUP);
    if (h.incompatible)
        return Error(fmt::format("Cannot downgrade an image with incompatible features set ({:#x})", h.incompatible),
                     ENOTSUP);
    if (h.snapshot_count) return Error("Cannot downgrade an image that has internal snapshots", ENOTSUP);
    if (h.bitmaps) return Error("Cannot downgrade an image that has persistent bitmaps", ENOTSUP);
    return {};
}

} // namespace

Task<Result<void>> Qcow2Image::amend_keys(Request const& request) {
    Header const& h = store_->header();
    if (h.crypt_method == CryptMethod::none)
        co_return Error("Can't amend encryption options - encryption not present", EINVAL);
    if (h.crypt_method != CryptMethod::luks) co_return Error("Only LUKS encryption options can be amended", ENOTSUP);
    CO_TRY_ASSIGN(LuksKeyChange change, luks_key_change(request.changes, "encrypt.", store_->context().secrets));
    change.force = request.force;
    if (!encryption_.luks || encryption_.passphrase.empty())
        co_return Error("The image was opened without its key", EINVAL);
    if (encryption_.luks->payload_offset > h.crypto->length)
        co_return Error("The LUKS payload offset lies beyond the encryption header", EIO);
    Result<void> result = co_await amend_luks(store_->context(), store_->file(), h.crypto->offset, *encryption_.luks,
                                              encryption_.passphrase, std::move(change));
    co_return result;
}

Task<Result<void>> Qcow2Image::amend(Request request) {
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    OptionValues const& changes = request.changes;
    std::function<void(std::uint64_t, std::uint64_t)> const& progress = request.progress;
    Header const before = store_->header();
    CO_TRY(check_unchanged(changes));
    std::string const compat = changes.text_or("compat", before.version == 2 ? "0.10" : "1.1");
    Result<std::uint32_t> const parsed = parse_compat(compat);
    if (!parsed.ok()) co_return error("Unknown compatibility level {}", compat);
    std::uint32_t const version = *parsed;
    CO_TRY_ASSIGN(unsigned order, wanted_refcount_order(changes, before, version));
    if (order != before.refcount_order) {
        CO_TRY(co_await store_->check_refcount_width(order));
    }
    auto about_keys = [](auto const& option) { return option.first.starts_with("encrypt."); };
    if (std::ranges::any_of(changes.all(), about_keys)) {
        CO_TRY(co_await amend_keys(request));
    }
    CO_TRY_ASSIGN(bool lazy, changes.boolean("lazy_refcounts", before.lazy_refcounts() && version >= 3));
    if (lazy && version < 3)
        co_return Error(
            "Lazy refcounts only supported with compatibility level 1.1 and above (use compat=1.1 or greater)", EINVAL);
    CO_TRY_ASSIGN(bool raw, changes.boolean("data_file_raw", before.raw_external_data()));
    if (raw && !before.raw_external_data()) co_return Error("data-file-raw cannot be set on existing images", EINVAL);
    std::optional<std::string> const old_backing =
        before.backing_file.empty() ? std::nullopt : std::optional(before.backing_file);
    if ((changes.has("backing_file") && changes.text("backing_file") != old_backing) ||
        (changes.has("backing_fmt") && changes.text("backing_fmt") != before.backing_format))
        co_return Error("Cannot amend the backing file\nYou can use 'qemu-img rebase' instead.", EINVAL);
    std::string const data_file = changes.text_or("data_file", before.data_file);
    if (!data_file.empty() && !before.external_data())
        co_return Error("data-file can only be set for images that use an external data file", EINVAL);
    if (changes.has("size")) {
        ResizeRequest resize_to{.shrink_ok = true}; // asked for by number: there is no other way to say so here
        CO_TRY_ASSIGN(resize_to.new_size_bytes, changes.size("size", size_));
        CO_TRY(co_await resize(resize_to));
    }
    if (version < before.version) {
        Header narrowed = store_->header();
        narrowed.refcount_order = order;
        CO_TRY(check_downgrade(narrowed));
        if (order != before.refcount_order) {
            CO_TRY(co_await store_->change_refcount_width(order, progress));
        }
        CO_TRY(co_await clusters_->expand_zeroes(std::uint64_t(store_->l1().size()) * store_->geometry().l2_coverage(),
                                                 progress));
    }
    CO_TRY(co_await store_->settle());
    Header& h = store_->header();
    Header const old = h;
    h.version = version;
    h.compatible = lazy ? h.compatible | compatible_lazy_refcounts : h.compatible & ~compatible_lazy_refcounts;
    if (version < 3) {
        h.compatible = h.autoclear = 0;
        h.unknown_fields.clear();
    }
    h.feature_names = version >= 3;
    h.data_file = data_file;
    if (!raw) h.autoclear &= ~autoclear_raw_data_file;
    Result<void> result;
    if (version > before.version &&
        h.snapshot_count) // version 3 wants longer entries, and the header goes out with them
        result = co_await snapshots_->rewrite();
    else
        result = co_await store_->write_header();
    if (!result.ok()) {
        h = old;
        co_return result;
    }
    // Only now is the image of a version that can tell the width.
    if (order != h.refcount_order) result = co_await store_->change_refcount_width(order, progress);
    co_return result;
}

} // namespace vmm::block::qcow2
