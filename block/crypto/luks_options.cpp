#include "block/crypto/luks_options.h"

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
