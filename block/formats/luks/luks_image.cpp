#include "block/formats/luks/luks_image.h"

#include "block/core/capabilities.h"
#include "block/core/secret_store.h"
#include "block/core/sync.h"
#include "block/core/worker_pool.h"
#include "block/crypto/luks_options.h"
#include "vmm/base/checked.h"

#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace vmm::block {

namespace {

constexpr std::uint8_t magic[] = {'L', 'U', 'K', 'S', 0xba, 0xbe, 0, 1};
constexpr std::uint64_t sector_bytes = SectorCipher::sector_bytes;
constexpr std::uint64_t copy_bytes = 256 * KiB;
// Below this a hop to another thread costs more than the cipher.
constexpr std::size_t inline_cipher_bytes = 16384;

constexpr OptionSpec open_options[] = {{"key-secret", OptionType::string, "ID of the secret with the passphrase"}};

constexpr OptionSpec create_options[] = {
    {"size", OptionType::size, "Virtual disk size"},
    {"key-secret", OptionType::string, "ID of the secret that provides the keyslot passphrase"},
    {"cipher-alg", OptionType::string, "Name of encryption cipher algorithm"},
    {"cipher-mode", OptionType::string, "Name of encryption cipher mode"},
    {"ivgen-alg", OptionType::string, "Name of IV generator algorithm"},
    {"ivgen-hash-alg", OptionType::string, "Name of IV generator hash algorithm"},
    {"hash-alg", OptionType::string, "Name of encryption hash algorithm"},
    {"iter-time", OptionType::number, "Time to spend in PBKDF in milliseconds"},
};

using Secret = std::vector<std::uint8_t>;

Result<Secret> find_secret(BlockContext& context, OptionValues const& options) {
    std::string id = options.text_or("key-secret", "");
    if (id.empty()) return error("Parameter 'key-secret' is required for cipher");
    if (!context.secrets) return error("No secret with id '{}'", id);
    return context.secrets->find(id);
}

// Sectors are numbered from the beginning of the payload. No holes: what was never written reads as noise.
class LuksImage final : public Image, public Resizable, public InfoSource, public Amendable {
public:
    // `cipher` null: opened for its metadata.
    LuksImage(FormatOpenArgs args, LuksHeader header, std::unique_ptr<SectorCipher> cipher, Secret passphrase)
        : context_(args.context), file_(std::move(args.file)), name_(std::move(args.filename)),
          header_(std::move(header)), cipher_(std::move(cipher)), passphrase_(std::move(passphrase)) {}

    std::string_view format_name() const override { return "luks"; }
    BlockDevice* file() override { return file_.get(); }
    BackingReference backing_reference() const override { return {}; }
    Task<Result<void>> close() override {
        Result<void> result;
        if (!read_only()) result = co_await file_->flush();
        co_return result;
    }
    Result<std::uint64_t> allocated_size_bytes() override {
        struct stat status {};
        if (stat(name_.c_str(), &status) < 0) return error_from_errno(errno, "Could not examine '{}'", name_);
        return std::uint64_t(status.st_blocks) * 512;
    }
    std::uint64_t size_bytes() const override { return file_->size_bytes() - header_.payload_offset; }
    bool read_only() const override { return file_->read_only(); }
    Limits limits() const override {
        Limits l;
        l.opt_transfer = sector_bytes;
        return l;
    }
    Capabilities capabilities() override {
        return Capabilities{
            .resizable = file_->capabilities().resizable ? this : nullptr, .info = this, .amendable = this};
    }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override;
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability durability) override;
    Task<Result<void>> flush() override { return file_->flush(); }
    Task<Result<void>> resize(ResizeRequest request) override {
        if (request.new_size_bytes % sector_bytes) co_return Error("The new size must be a multiple of 512", EINVAL);
        if (request.new_size_bytes > std::uint64_t(INT64_MAX) - header_.payload_offset)
            co_return Error("File too large", EFBIG);
        request.new_size_bytes += header_.payload_offset;
        Result<void> result = co_await file_->capabilities().resizable->resize(request);
        co_return result;
    }
    Task<Result<void>> amend(Request request) override {
        CO_TRY_ASSIGN(LuksKeyChange change, luks_key_change(request.changes, "", context_.secrets));
        change.force = request.force;
        Result<void> result = co_await amend_luks(context_, *file_, 0, header_, passphrase_, std::move(change));
        co_return result;
    }
    Task<Result<FormatInfo>> format_info() override {
        FormatInfo info;
        info.encrypted = true;
        info.dirty = false;
        info.specific_type = "luks";
        info.specific_data = describe_luks(header_, false);
        co_return info;
    }

private:
    // `sectors`: whole sectors of the payload, at `offset`.
    Task<Result<void>> read_sectors(std::uint64_t offset, Bytes sectors);
    Task<Result<void>> run_cipher(bool encrypt, std::uint64_t offset, Bytes sectors);
    Result<void> check(std::uint64_t offset, std::uint64_t length) const {
        TRY(check_range(offset, length, size_bytes()));
        if (!cipher_) return Error("The image was opened for its metadata only", EIO);
        return {};
    }

    BlockContext& context_;
    std::unique_ptr<BlockDevice> file_;
    std::string name_;
    LuksHeader header_;
    std::unique_ptr<SectorCipher> cipher_;
    Secret passphrase_; // that opened the disk
    RangeLocks writes_; // sectors being written
};

Task<Result<void>> LuksImage::run_cipher(bool encrypt, std::uint64_t offset, Bytes sectors) {
    auto work = [this, encrypt, number = offset / sector_bytes, sectors] {
        return encrypt ? cipher_->encrypt(number, sectors) : cipher_->decrypt(number, sectors);
    };
    bool ok;
    if (sectors.size() <= inline_cipher_bytes)
        ok = work();
    else
        ok = co_await on_pool(context_.pool, work);
    if (!ok) co_return Error(encrypt ? "Encryption failed" : "Decryption failed", EIO);
    co_return Result<void>{};
}

Task<Result<void>> LuksImage::read_sectors(std::uint64_t offset, Bytes sectors) {
    CO_TRY(co_await read_bytes(*file_, header_.payload_offset + offset, sectors));
    Result<void> result = co_await run_cipher(false, offset, sectors);
    co_return result;
}

Task<Result<void>> LuksImage::read(std::uint64_t offset, IoSpans to) {
    std::uint64_t const length = to.size_bytes();
    CO_TRY(check(offset, length));
    std::vector<std::uint8_t> bounce(align_up(std::min(length, copy_bytes), sector_bytes) + sector_bytes);
    for (std::uint64_t done = 0; done < length;) {
        std::uint64_t const head = (offset + done) % sector_bytes, n = std::min(length - done, copy_bytes);
        Bytes sectors = Bytes(bounce).first(align_up(head + n, sector_bytes));
        CO_TRY(co_await read_sectors(offset + done - head, sectors));
        copy_to_spans(to, done, sectors.subspan(head, n));
        done += n;
    }
    co_return Result<void>{};
}

Task<Result<void>> LuksImage::write(std::uint64_t offset, ConstIoSpans from, Durability durability) {
    std::uint64_t const length = from.size_bytes();
    if (read_only()) co_return Error("Operation not permitted", EPERM);
    CO_TRY(check(offset, length));
    if (length == 0) co_return Result<void>{};
    std::uint64_t const begin = align_down(offset, sector_bytes), end = align_up(offset + length, sector_bytes);
    RangeLocks::Hold hold = co_await writes_.lock(begin, end - begin);
    std::vector<std::uint8_t> bounce(std::min(end - begin, copy_bytes));
    for (std::uint64_t at = begin; at < end; at += bounce.size()) {
        Bytes sectors = Bytes(bounce).first(std::min<std::uint64_t>(bounce.size(), end - at));
        std::uint64_t const from_here = std::max(at, offset), to_here = std::min(at + sectors.size(), offset + length);
        if (from_here > at) {
            CO_TRY(co_await read_sectors(at, sectors.first(sector_bytes)));
        }
        if (to_here < at + sectors.size() && (from_here == at || sectors.size() > sector_bytes)) {
            CO_TRY(co_await read_sectors(at + sectors.size() - sector_bytes, sectors.last(sector_bytes)));
        }
        copy_from_spans(from, from_here - offset, sectors.subspan(from_here - at, to_here - from_here));
        CO_TRY(co_await run_cipher(true, at, sectors));
        CO_TRY(co_await write_bytes(*file_, header_.payload_offset + at, sectors, durability));
    }
    co_return Result<void>{};
}

int probe(ConstBytes header, std::string_view) {
    bool ours = header.size() >= sizeof magic && std::memcmp(header.data(), magic, sizeof magic) == 0;
    return ours ? 100 : 0;
}

Task<Result<std::unique_ptr<Image>>> open(FormatOpenArgs args) {
    std::vector<std::uint8_t> start(std::min<std::uint64_t>(luks_header_bytes, args.file->size_bytes()));
    Bytes start_bytes(start);
    CO_TRY(co_await read_bytes(*args.file, 0, start_bytes));
    if (start.size() < luks_header_bytes) co_return error("Volume is not in LUKS format");
    CO_TRY_ASSIGN(LuksHeader header, parse_luks_header(start));
    if (header.payload_offset > max_luks_header_area || header.payload_offset > args.file->size_bytes())
        co_return error("The LUKS payload offset {} lies beyond the end of the file", header.payload_offset);
    std::unique_ptr<SectorCipher> cipher;
    Secret secret;
    if (!args.options.no_io) {
        CO_TRY_ASSIGN(secret, find_secret(args.context, args.options.tree));
        std::vector<std::uint8_t> area(header.payload_offset);
        Bytes area_bytes(area);
        CO_TRY(co_await read_bytes(*args.file, 0, area_bytes));
        auto work = [&] { return unlock_luks(header, area, secret); };
        Result<std::unique_ptr<SectorCipher>> unlocked = co_await on_pool(args.context.pool, work);
        if (!unlocked.ok()) co_return unlocked.error();
        cipher = std::move(unlocked).value();
    }
    co_return std::make_unique<LuksImage>(std::move(args), std::move(header), std::move(cipher), std::move(secret));
}

Task<Result<void>> create(BlockContext& context, CreateRequest request) {
    CO_TRY_ASSIGN(Secret secret, find_secret(context, request.options));
    CO_TRY_ASSIGN(LuksCreateOptions options, luks_create_options(request.options, ""));
    if (request.size_bytes > std::uint64_t(INT64_MAX) - max_luks_header_area)
        co_return Error("The requested file size is too large", EFBIG);
    auto work = [&] { return make_luks(options, secret); };
    Result<NewLuks> made = co_await on_pool(context.pool, work);
    if (!made.ok()) co_return made.error();
    std::uint64_t const size = made->area.size() + align_up<std::uint64_t>(request.size_bytes, sector_bytes);
    CO_TRY_ASSIGN(std::unique_ptr<BlockDevice> file,
                  co_await create_file(context, request.filename, size, request.file_options));
    ConstBytes area(made->area);
    CO_TRY(co_await write_bytes(*file, 0, area));
    Result<void> result = co_await file->flush();
    co_return result;
}

Result<Format::Measure> measure(std::uint64_t size, std::uint64_t, OptionValues const& values) {
    LuksCreateOptions options = TRY(luks_create_options(values, ""));
    std::uint64_t whole = size + TRY(luks_area_bytes(options));
    return Format::Measure{.required = whole, .fully_allocated = whole};
}

} // namespace

Format luks_format() {
    return {.name = "luks",
            .probe = probe,
            .open = open,
            .create = create,
            .create_options = create_options,
            .open_options = open_options,
            .amend_options = luks_amend_options,
            .measure = measure};
}

} // namespace vmm::block
