#include "block/formats/qcow/image.h"

#include "block/core/secret_store.h"

#include <algorithm>
#include <cerrno>

namespace vmm::block::qcow {

QcowImage::QcowImage(FormatOpenArgs args, Header header, std::string backing, std::unique_ptr<SectorCipher> cipher)
    : MappedImage(std::move(args), "qcow", header.size, header.cluster_bytes()), header_(header),
      backing_(std::move(backing)), cipher_(std::move(cipher)), tables_(*file_, header) {}

Capabilities QcowImage::capabilities() {
    Capabilities can = MappedImage::capabilities();
    can.emptyable = read_only() ? nullptr : this;
    can.compressed = read_only() || encrypted() ? nullptr : this;
    return can;
}

Task<Result<void>> QcowImage::load_tables() {
    CO_TRY(co_await tables_.load_l1());
    add_metadata(file_.get(), 0, sizeof header_, "header");
    for (auto [offset, bytes] : tables_.places()) add_metadata(file_.get(), offset, bytes, "L1 table or an L2 table");
    co_return Result<void>{};
}

Result<std::optional<Mapping>> QcowImage::find(std::uint64_t offset) {
    if (encrypted() && !cipher_) return Error("The image is encrypted and was opened without its key", EACCES);
    std::optional<std::uint64_t> entry = tables_.find(offset);
    if (!entry) return std::optional<Mapping>();
    Mapping at;
    at.start = offset & ~(unit_ - 1);
    at.length = std::min(unit_, size_ - at.start);
    at.device = file_.get();
    if (*entry == 0) return at;
    at.cookie = *entry;
    at.kind = *entry & entry_compressed ? Mapping::Kind::compressed : Mapping::Kind::data;
    at.host_offset = *entry;
    if (at.kind == Mapping::Kind::data && (*entry & (unit_ - 1) || *entry >= file_->size_bytes()))
        return Error(fmt::format("'{}': L2 entry of cluster {} is {:#x}: not a cluster of the file", file_name_,
                                 offset / unit_, *entry),
                     EIO);
    return at;
}

Task<Result<NewPlace>> QcowImage::allocate(Mapping was) {
    CO_TRY(co_await tables_.pin(was.start));
    NewPlace place;
    place.device = file_.get();
    place.host_offset = tables_.append_cluster();
    if (place.host_offset > INT64_MAX / 2) co_return Error("The qcow image is full", ENOSPC);
    place.reads_zero = place.host_offset >= file_->size_bytes();
    CO_TRY(co_await extend_file(*file_, place.host_offset + unit_));
    co_return place;
}

Task<Result<void>> QcowImage::read_compressed(Mapping was, Bytes unit) {
    unsigned size_shift = 63 - header_.cluster_bits;
    std::uint64_t at = was.cookie & ((std::uint64_t(1) << size_shift) - 1);
    std::uint64_t size = was.cookie >> size_shift & (unit_ - 1);
    Result<void> inside = check_inside_file(*file_, at, size, "compressed cluster");
    if (!inside.ok()) co_return Error(inside.error().message(), EIO);
    std::vector<std::uint8_t> packed(size), whole(unit_);
    CO_TRY(co_await read_bytes(*file_, at, packed));
    CO_TRY(co_await inflate_on_pool(context_, DeflateKind::raw, std::move(packed), whole));
    std::copy_n(whole.begin(), unit.size(), unit.begin());
    co_return Result<void>{};
}

Task<Result<void>> QcowImage::write_compressed(std::uint64_t offset, ConstIoSpans from) {
    CO_TRY(check_range(offset, from.size_bytes(), size_));
    if (offset % unit_ || from.size_bytes() > unit_)
        co_return Error("Compressed writes must be whole clusters", EINVAL);
    std::vector<std::uint8_t> content(unit_);
    copy_from_spans(from, 0, Bytes(content).first(from.size_bytes()));
    ConstBytes plain(content);
    std::vector<std::uint8_t> packed = co_await deflate_on_pool(context_, DeflateKind::raw, 12, plain, unit_ - 1);
    if (packed.empty()) {
        Result<void> stored = co_await write(offset, from, Durability::cached);
        co_return stored;
    }
    RangeLocks::Hold hold = co_await allocations_.lock(offset, unit_);
    CO_TRY(co_await tables_.pin(offset));
    std::uint64_t at = tables_.append_bytes(packed.size());
    unsigned size_shift = 63 - header_.cluster_bits;
    if (at >> size_shift) co_return Error("The qcow image is full", ENOSPC);
    CO_TRY(co_await write_bytes(*file_, at, packed));
    tables_.set(offset, entry_compressed | std::uint64_t(packed.size()) << size_shift | at);
    co_return Result<void>{};
}

Result<std::unique_ptr<SectorCipher>> cipher_from(BlockContext& context, OptionValues const& options) {
    auto id = options.text("encrypt.key-secret");
    if (!id) return error("Parameter 'encrypt.key-secret' is required for cipher");
    if (!context.secrets) return error("No secret with id '{}'", *id);
    std::vector<std::uint8_t> passphrase = TRY(context.secrets->find(*id));
    return SectorCipher::create(passphrase);
}

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    Header header;
    CO_TRY(check_inside_file(*args.file, 0, sizeof header, "qcow header"));
    Bytes bytes(reinterpret_cast<std::uint8_t*>(&header), sizeof header);
    CO_TRY(co_await read_bytes(*args.file, 0, bytes));
    CO_TRY(validate(header, args.filename));
    std::string backing;
    if (header.backing_offset != 0 && header.backing_size != 0) {
        CO_TRY(check_inside_file(*args.file, header.backing_offset, header.backing_size, "backing_file_offset"));
        backing.resize(header.backing_size);
        Bytes name(reinterpret_cast<std::uint8_t*>(backing.data()), backing.size());
        CO_TRY(co_await read_bytes(*args.file, header.backing_offset, name));
    }
    std::unique_ptr<SectorCipher> cipher;
    if (header.crypt_method == crypt_aes && !args.options.no_io) {
        CO_TRY_ASSIGN(cipher, cipher_from(args.context, args.options.tree));
    }
    auto image = std::make_unique<QcowImage>(std::move(args), header, std::move(backing), std::move(cipher));
    CO_TRY(co_await image->load_tables());
    co_return std::move(image);
}

} // namespace vmm::block::qcow
