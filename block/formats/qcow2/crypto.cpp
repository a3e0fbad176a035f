#include "block/formats/qcow2/crypto.h"

#include "block/core/secret_store.h"
#include "block/core/worker_pool.h"
#include "block/crypto/luks_options.h"
#include "vmm/base/checked.h"

#include <cerrno>

namespace vmm::block::qcow2 {

namespace {

using Secret = std::vector<std::uint8_t>;

Result<Secret> find_secret(BlockContext& context, OptionValues const& options) {
    std::string id = options.text_or("encrypt.key-secret", "");
    if (id.empty()) return error("Parameter 'encrypt.key-secret' is required for cipher");
    if (!context.secrets) return error("No secret with id '{}'", id);
    return context.secrets->find(id);
}

Task<Result<std::vector<std::uint8_t>>> read_area(Store& store) {
    CryptoPointer const at = *store.header().crypto;
    std::uint64_t const end = store.file().size_bytes();
    if (at.length > max_luks_header_area || at.length < luks_header_bytes || at.offset > end ||
        at.length > end - at.offset)
        co_return error("The encryption header ({} bytes at {:#x}) does not lie in the image file", at.length,
                        at.offset);
    std::vector<std::uint8_t> area(at.length);
    Bytes all(area);
    CO_TRY(co_await read_bytes(store.file(), at.offset, all));
    co_return area;
}

} // namespace

Task<Result<Encryption>> open_encryption(Store& store, OpenOptions const& options) {
    Encryption made;
    CryptMethod const method = store.header().crypt_method;
    if (method == CryptMethod::none) co_return std::move(made);
    std::vector<std::uint8_t> area;
    if (method == CryptMethod::luks) {
        CO_TRY_ASSIGN(area, co_await read_area(store));
        CO_TRY_ASSIGN(made.luks, parse_luks_header(area));
    }
    if (options.no_io || (options.for_check && !options.tree.has("encrypt.key-secret"))) co_return std::move(made);
    CO_TRY_ASSIGN(Secret secret, find_secret(store.context(), options.tree));
    if (method == CryptMethod::aes) {
        CO_TRY_ASSIGN(made.cipher, make_qcow_aes(secret));
        co_return std::move(made);
    }
    auto work = [&] { return unlock_luks(*made.luks, area, secret); };
    Result<std::unique_ptr<SectorCipher>> cipher = co_await on_pool(store.context().pool, work);
    if (!cipher.ok()) co_return cipher.error();
    made.cipher = std::move(cipher).value();
    made.passphrase = std::move(secret);
    co_return std::move(made);
}

Result<CryptMethod> requested_encryption(OptionValues const& options) {
    std::string format = options.text_or("encrypt.format", "");
    if (TRY(options.boolean("encryption", false)) && format.empty()) format = "aes";
    if (format.empty() && !options.sub("encrypt").empty()) return error("Parameter 'encrypt.format' is missing");
    if (format.empty()) return CryptMethod::none;
    if (format == "aes") return CryptMethod::aes;
    if (format == "luks") return CryptMethod::luks;
    return error("Parameter 'format' does not accept value '{}'", format);
}

Task<Result<void>> add_encryption(Store& store, OptionValues const& options) {
    CO_TRY_ASSIGN(CryptMethod method, requested_encryption(options));
    if (method == CryptMethod::none) co_return Result<void>{};
    CO_TRY_ASSIGN(Secret secret, find_secret(store.context(), options));
    Header& h = store.header();
    if (method == CryptMethod::luks) {
        CO_TRY_ASSIGN(LuksCreateOptions luks, luks_create_options(options, "encrypt."));
        auto work = [&] { return make_luks(luks, secret); };
        Result<NewLuks> made = co_await on_pool(store.context().pool, work);
        if (!made.ok()) co_return made.error();
        std::uint64_t const cluster = store.geometry().cluster();
        CO_TRY_ASSIGN(Extent extent,
                      co_await store.refcounts().allocate_exact(div_ceil<std::uint64_t>(made->area.size(), cluster)));
        std::uint64_t const length = made->area.size();
        made->area.resize(align_up(length, cluster));
        ConstBytes all(made->area);
        CO_TRY(co_await write_bytes(store.file(), extent.offset, all));
        h.crypto = CryptoPointer{extent.offset, length};
        store.areas().add(extent.offset, length, Area::encryption_header);
    }
    CO_TRY(co_await store.commit());
    h.crypt_method = method;
    Result<void> result = co_await store.write_header();
    co_return result;
}

Value encryption_info(CryptMethod method, std::optional<LuksHeader> const& luks) {
    Value v;
    if (method == CryptMethod::aes) return v.set("format", "aes");
    if (!luks) return v.set("format", "luks");
    return describe_luks(*luks, true);
}

} // namespace vmm::block::qcow2
