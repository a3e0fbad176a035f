#include "block/crypto/luks_options.h"

#include "block/core/worker_pool.h"

namespace vmm::block {

Result<LuksCreateOptions> luks_create_options(OptionValues const& options, std::string const& prefix) {
    LuksCreateOptions luks;
    luks.cipher_alg = options.text_or(prefix + "cipher-alg", luks.cipher_alg);
    luks.cipher_mode = options.text_or(prefix + "cipher-mode", luks.cipher_mode);
    luks.ivgen_alg = options.text_or(prefix + "ivgen-alg", luks.ivgen_alg);
    luks.ivgen_hash_alg = options.text_or(prefix + "ivgen-hash-alg", luks.ivgen_alg == "essiv" ? "sha256" : "");
    luks.hash_alg = options.text_or(prefix + "hash-alg", luks.hash_alg);
    luks.iter_time_ms = TRY(options.number(prefix + "iter-time", luks.iter_time_ms));
    return luks;
}

Result<LuksKeyChange> luks_key_change(OptionValues const& options, std::string const& prefix,
                                      SecretStore const* secrets) {
    LuksKeyChange change;
    std::string const state = options.text_or(prefix + "state", "");
    if (state.empty()) return error("Parameter 'state' is missing");
    if (state != "active" && state != "inactive") return error("Parameter 'state' does not accept value '{}'", state);
    change.activate = state == "active";
    if (options.has(prefix + "keyslot")) change.slot = TRY(options.number(prefix + "keyslot", 0));
    if (options.has(prefix + "iter-time")) change.iter_time_ms = TRY(options.number(prefix + "iter-time", 0));
    auto find = [&](char const* name, std::optional<std::vector<std::uint8_t>>& into) -> Result<void> {
        std::string const id = options.text_or(prefix + name, "");
        if (id.empty()) return {};
        if (!secrets) return error("No secret with id '{}'", id);
        into = TRY(secrets->find(id));
        return {};
    };
    TRY(find("new-secret", change.new_passphrase));
    TRY(find("old-secret", change.old_passphrase));
    return change;
}

Task<Result<void>> amend_luks(BlockContext& context, BlockDevice& file, std::uint64_t offset, LuksHeader& header,
                              std::vector<std::uint8_t> passphrase, LuksKeyChange change) {
    std::vector<std::uint8_t> area(header.payload_offset);
    Bytes all(area);
    CO_TRY(co_await read_bytes(file, offset, all));
    LuksHeader changed = header;
    auto work = [&] { return change_luks_keys(changed, all, passphrase, change); };
    CO_TRY(co_await on_pool(context.pool, work));
    ConstBytes const head = ConstBytes(area).first(luks_header_bytes),
                     keys = ConstBytes(area).subspan(luks_header_bytes);
    for (bool header_now : {!change.activate, change.activate}) {
        CO_TRY(co_await write_bytes(file, offset + (header_now ? 0 : luks_header_bytes), header_now ? head : keys));
        CO_TRY(co_await file.flush());
    }
    header = std::move(changed);
    co_return Result<void>{};
}

Value describe_luks(LuksHeader const& header, bool name_format) {
    Value v;
    v.set("ivgen-alg", header.iv_name());
    if (header.spec.iv == IvGenerator::essiv) v.set("ivgen-hash-alg", header.spec.essiv_hash);
    v.set("hash-alg", header.hash).set("cipher-alg", header.cipher_alg()).set("uuid", header.uuid);
    if (name_format) v.set("format", "luks");
    v.set("cipher-mode", header.mode_name());
    Value slots = Value::list();
    for (LuksSlot const& slot : header.slots) {
        Value one;
        one.set("active", slot.active);
        if (slot.active) one.set("iters", slot.iterations);
        one.set("key-offset", slot.key_offset);
        if (slot.active) one.set("stripes", slot.stripes);
        slots.add(std::move(one));
    }
    v.set("slots", std::move(slots)).set("payload-offset", header.payload_offset);
    return v.set("master-key-iters", header.digest_iterations);
}

} // namespace vmm::block
