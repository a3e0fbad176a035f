#include "block/crypto/luks.h"

#include "vmm/base/checked.h"
#include "vmm/base/endian.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace vmm::block {

namespace {

constexpr std::uint8_t luks_magic[6] = {'L', 'U', 'K', 'S', 0xba, 0xbe};
constexpr std::uint32_t slot_enabled = 0x00ac71f3, slot_disabled = 0x0000dead;
constexpr std::uint64_t sector = SectorCipher::sector_bytes, key_alignment = 4096;
constexpr std::uint32_t stripes_of_new = 4000, minimum_iterations = 1000;

struct RawSlot {
    be32 active, iterations;
    std::uint8_t salt[32];
    be32 key_sector, stripes;
};
struct RawLuks {
    std::uint8_t magic[6];
    be16 version;
    char cipher_name[32], cipher_mode[32], hash[32];
    be32 payload_sector, key_bytes;
    std::uint8_t digest[20], digest_salt[32];
    be32 digest_iterations;
    char uuid[40];
    RawSlot slots[luks_slots];
};
static_assert(sizeof(RawLuks) == luks_header_bytes);

template <std::size_t N> Result<std::string> text_field(char const (&field)[N], std::string_view what) {
    std::size_t n = strnlen(field, N);
    if (n == N) return error("LUKS header {} is not NUL terminated", what);
    return std::string(field, n);
}

using SecretBytes = std::vector<std::uint8_t>;
void wipe(SecretBytes& secret) { OPENSSL_cleanse(secret.data(), secret.size()); }

bool pbkdf2(EVP_MD const* hash, ConstBytes secret, ConstBytes salt, std::uint32_t iterations, Bytes out) {
    return PKCS5_PBKDF2_HMAC(reinterpret_cast<char const*>(secret.data()), int(secret.size()), salt.data(),
                             int(salt.size()), int(iterations), hash, int(out.size()), out.data()) == 1;
}

// The anti-forensic splitter's diffusion: each digest-sized piece becomes the hash of its number and itself.
bool diffuse(EVP_MD const* hash, Bytes block) {
    std::size_t const digest = std::size_t(EVP_MD_get_size(hash));
    for (std::size_t at = 0, i = 0; at < block.size(); at += digest, ++i) {
        std::size_t n = std::min(digest, block.size() - at);
        std::vector<std::uint8_t> input(4 + n);
        be32 number{std::uint32_t(i)};
        std::memcpy(input.data(), &number, 4);
        std::copy_n(block.begin() + std::ptrdiff_t(at), n, input.begin() + 4);
        std::array<std::uint8_t, EVP_MAX_MD_SIZE> out{};
        if (EVP_Digest(input.data(), input.size(), out.data(), nullptr, hash, nullptr) != 1) return false;
        std::copy_n(out.begin(), n, block.begin() + std::ptrdiff_t(at));
    }
    return true;
}

void xor_into(Bytes to, ConstBytes from) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] ^= from[i];
}

bool merge_stripes(EVP_MD const* hash, ConstBytes material, std::size_t stripes, Bytes key) {
    std::ranges::fill(key, 0);
    for (std::size_t s = 0; s < stripes; ++s) {
        xor_into(key, material.subspan(s * key.size(), key.size()));
        if (s + 1 < stripes && !diffuse(hash, key)) return false;
    }
    return true;
}

bool split_stripes(EVP_MD const* hash, ConstBytes key, std::size_t stripes, Bytes material) {
    SecretBytes state(key.size());
    if (RAND_bytes(material.data(), int((stripes - 1) * key.size())) != 1) return false;
    for (std::size_t s = 0; s + 1 < stripes; ++s) {
        xor_into(state, material.subspan(s * key.size(), key.size()));
        if (!diffuse(hash, state)) return false;
    }
    Bytes last = material.subspan((stripes - 1) * key.size(), key.size());
    std::ranges::copy(key, last.begin());
    xor_into(last, state);
    wipe(state);
    return true;
}

// "xts-plain64", "cbc-essiv:sha256", "ecb".
Result<AesSpec> parse_mode(std::string const& name, std::string const& mode, std::uint32_t key_bytes) {
    if (name != "aes")
        return Error(fmt::format("Cipher '{}' of the LUKS header is not supported (only aes)", name), ENOTSUP);
    AesSpec spec;
    std::size_t const dash = mode.find('-');
    std::string const chain = mode.substr(0, dash);
    std::string iv = dash == std::string::npos ? "" : mode.substr(dash + 1), hash;
    if (std::size_t colon = iv.find(':'); colon != std::string::npos) {
        hash = iv.substr(colon + 1);
        iv.resize(colon);
    }
    if (chain == "xts")
        spec.mode = CipherMode::xts;
    else if (chain == "cbc")
        spec.mode = CipherMode::cbc;
    else if (chain == "ecb")
        spec.mode = CipherMode::ecb;
    else if (chain == "ctr")
        spec.mode = CipherMode::ctr;
    else
        return Error(fmt::format("Cipher mode '{}' of the LUKS header is not supported", mode), ENOTSUP);
    if (iv == "plain")
        spec.iv = IvGenerator::plain;
    else if (iv == "plain64")
        spec.iv = IvGenerator::plain64;
    else if (iv == "essiv")
        spec.iv = IvGenerator::essiv;
    else if (iv.empty())
        spec.iv = IvGenerator::none;
    else
        return Error(fmt::format("IV generator '{}' of the LUKS header is not supported", iv), ENOTSUP);
    if (spec.iv == IvGenerator::essiv) {
        if (hash.empty()) return error("The LUKS header names no hash for ESSIV");
        spec.essiv_hash = hash;
    }
    std::uint32_t const bytes = spec.mode == CipherMode::xts ? key_bytes / 2 : key_bytes;
    spec.key_bits = bytes * 8;
    bool const fits = bytes == 16 || bytes == 32 || (bytes == 24 && spec.mode != CipherMode::xts);
    if (!fits || spec.key_bytes() != key_bytes) return error("LUKS key length {} does not suit the cipher", key_bytes);
    return spec;
}

Result<EVP_MD const*> find_hash(std::string const& name) {
    EVP_MD const* hash = EVP_get_digestbyname(name.c_str());
    if (!hash) return Error(fmt::format("Hash algorithm '{}' is not supported", name), ENOTSUP);
    return hash;
}

std::uint64_t material_bytes(std::uint32_t key_bytes, std::uint32_t stripes) {
    return align_up<std::uint64_t>(std::uint64_t(key_bytes) * stripes, sector);
}

// No two slots share key material.
Result<void> check_overlap(LuksHeader const& h) {
    for (std::size_t i = 0; i < luks_slots; ++i)
        for (std::size_t j = i + 1; j < luks_slots; ++j) {
            LuksSlot const &a = h.slots[i], &b = h.slots[j];
            if (a.key_offset < b.key_offset + material_bytes(h.key_bytes, b.stripes) &&
                b.key_offset < a.key_offset + material_bytes(h.key_bytes, a.stripes))
                return error("LUKS key slots {} and {} overlap", i, j);
        }
    return {};
}

} // namespace

std::string_view LuksHeader::mode_name() const {
    switch (spec.mode) {
    case CipherMode::xts: return "xts";
    case CipherMode::cbc: return "cbc";
    case CipherMode::ctr: return "ctr";
    case CipherMode::ecb: break;
    }
    return "ecb";
}
std::string_view LuksHeader::iv_name() const {
    return spec.iv == IvGenerator::essiv ? "essiv" : spec.iv == IvGenerator::plain ? "plain" : "plain64";
}

Result<LuksHeader> parse_luks_header(ConstBytes start) {
    RawLuks raw{};
    if (start.size() < sizeof raw) return error("The LUKS header is cut off");
    std::memcpy(&raw, start.data(), sizeof raw);
    if (std::memcmp(raw.magic, luks_magic, sizeof luks_magic) != 0) return error("Volume is not in LUKS format");
    if (raw.version != 1)
        return Error(fmt::format("LUKS version {} is not supported", std::uint16_t(raw.version)), ENOTSUP);
    LuksHeader h;
    h.cipher_name = TRY(text_field(raw.cipher_name, "cipher name"));
    h.cipher_mode = TRY(text_field(raw.cipher_mode, "cipher mode"));
    h.hash = TRY(text_field(raw.hash, "hash spec"));
    h.uuid = TRY(text_field(raw.uuid, "UUID"));
    h.key_bytes = raw.key_bytes;
    h.spec = TRY(parse_mode(h.cipher_name, h.cipher_mode, h.key_bytes));
    TRY(find_hash(h.hash));
    h.payload_offset = std::uint64_t(raw.payload_sector) * sector;
    h.digest_iterations = raw.digest_iterations;
    if (h.digest_iterations == 0 || h.digest_iterations > max_luks_iterations)
        return error("LUKS master key iterations {} are not between 1 and {}", h.digest_iterations,
                     max_luks_iterations);
    std::ranges::copy(raw.digest, h.digest.begin());
    std::ranges::copy(raw.digest_salt, h.digest_salt.begin());
    for (std::size_t i = 0; i < luks_slots; ++i) {
        RawSlot const& r = raw.slots[i];
        LuksSlot& s = h.slots[i];
        if (r.active != slot_enabled && r.active != slot_disabled)
            return error("LUKS key slot {} state {:#x} is invalid", i, std::uint32_t(r.active));
        s.active = r.active == slot_enabled;
        s.iterations = r.iterations;
        s.stripes = r.stripes;
        s.key_offset = std::uint64_t(r.key_sector) * sector;
        std::ranges::copy(r.salt, s.salt.begin());
        if (s.stripes == 0 || s.stripes > max_luks_stripes) return error("LUKS key slot {}: {} stripes", i, s.stripes);
        if (s.active && (s.iterations == 0 || s.iterations > max_luks_iterations))
            return error("LUKS key slot {}: iterations {} are not between 1 and {}", i, s.iterations,
                         max_luks_iterations);
        if (s.key_offset < luks_header_bytes) return error("LUKS key slot {}: key material overlaps the header", i);
    }
    TRY(check_overlap(h));
    return h;
}

namespace {

// The part of `area` that slot `i` says is its own.
template <class Span> Result<Span> slot_material(LuksHeader const& h, std::size_t i, Span area) {
    LuksSlot const& s = h.slots[i];
    std::uint64_t const bytes = material_bytes(h.key_bytes, s.stripes);
    if (s.key_offset > area.size() || bytes > area.size() - s.key_offset)
        return error("LUKS key slot {}: key material lies beyond the header area", i);
    return area.subspan(s.key_offset, bytes);
}

// The master key, if `passphrase` opens slot `i`; else nothing.
Result<std::optional<SecretBytes>> open_slot(LuksHeader const& h, std::size_t i, ConstBytes area,
                                             ConstBytes passphrase) {
    EVP_MD const* hash = TRY(find_hash(h.hash));
    LuksSlot const& s = h.slots[i];
    ConstBytes const stored = TRY(slot_material(h, i, area));
    SecretBytes slot_key(h.key_bytes), master(h.key_bytes), material(stored.begin(), stored.end());
    std::array<std::uint8_t, 20> digest{};
    if (!pbkdf2(hash, passphrase, s.salt, s.iterations, slot_key)) return error("PBKDF2 failed");
    std::unique_ptr<SectorCipher> cipher = TRY(make_aes(h.spec, slot_key));
    if (!cipher->decrypt(0, material) || !merge_stripes(hash, material, s.stripes, master) ||
        !pbkdf2(hash, master, h.digest_salt, h.digest_iterations, digest))
        return error("Could not decrypt LUKS key slot {}", i);
    wipe(slot_key);
    wipe(material);
    if (CRYPTO_memcmp(digest.data(), h.digest.data(), digest.size()) == 0) return std::optional(std::move(master));
    wipe(master);
    return std::optional<SecretBytes>();
}

Result<SecretBytes> master_key(LuksHeader const& h, ConstBytes area, ConstBytes passphrase) {
    for (std::size_t i = 0; i < luks_slots; ++i) {
        if (!h.slots[i].active) continue;
        std::optional<SecretBytes> master = TRY(open_slot(h, i, area, passphrase));
        if (master) return std::move(*master);
    }
    return Error("Invalid password, cannot unlock any keyslot", EPERM);
}

} // namespace

Result<std::unique_ptr<SectorCipher>> unlock_luks(LuksHeader const& h, ConstBytes area, ConstBytes passphrase) {
    SecretBytes master = TRY(master_key(h, area, passphrase));
    auto result = make_aes(h.spec, master);
    wipe(master);
    return result;
}

namespace {

Result<LuksHeader> new_header(LuksCreateOptions const& o) {
    LuksHeader h;
    std::uint32_t bits = 0;
    if (o.cipher_alg == "aes-128")
        bits = 128;
    else if (o.cipher_alg == "aes-192")
        bits = 192;
    else if (o.cipher_alg == "aes-256")
        bits = 256;
    else
        return error("Parameter 'cipher-alg' does not accept value '{}'", o.cipher_alg);
    h.cipher_name = "aes";
    h.cipher_mode = o.cipher_mode + "-" + o.ivgen_alg;
    if (o.ivgen_alg == "essiv") {
        if (o.ivgen_hash_alg.empty()) return error("IV generator essiv requires a hash algorithm (ivgen-hash-alg)");
        h.cipher_mode += ":" + o.ivgen_hash_alg;
    }
    h.hash = o.hash_alg;
    h.key_bytes = bits / 8 * (o.cipher_mode == "xts" ? 2 : 1);
    h.spec = TRY(parse_mode(h.cipher_name, h.cipher_mode, h.key_bytes));
    TRY(find_hash(h.hash));
    std::uint64_t at = key_alignment;
    for (LuksSlot& slot : h.slots) {
        slot.stripes = stripes_of_new;
        slot.key_offset = at;
        at += align_up(material_bytes(h.key_bytes, slot.stripes), key_alignment);
    }
    h.payload_offset = at;
    return h;
}

// How many iterations take `ms` milliseconds here.
std::uint32_t calibrate(EVP_MD const* hash, std::size_t key_bytes, std::uint64_t ms) {
    using Clock = std::chrono::steady_clock;
    std::vector<std::uint8_t> out(key_bytes);
    std::uint8_t const salt[32] = {};
    std::uint32_t iterations = 1 << 14;
    for (;;) {
        auto start = Clock::now();
        if (!pbkdf2(hash, ConstBytes(salt), ConstBytes(salt), iterations, out)) return minimum_iterations;
        double took = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
        if (took < 20 && iterations < (1u << 26)) {
            iterations *= 2;
            continue;
        }
        double wanted = double(iterations) * double(ms) / std::max(took, 0.001);
        return std::uint32_t(std::clamp(wanted, double(minimum_iterations), double(max_luks_iterations)));
    }
}

std::string random_uuid() {
    std::array<std::uint8_t, 16> b{};
    if (RAND_bytes(b.data(), int(b.size())) != 1) return {};
    b[6] = std::uint8_t((b[6] & 0x0f) | 0x40);
    b[8] = std::uint8_t((b[8] & 0x3f) | 0x80);
    std::string out;
    for (std::size_t i = 0; i < b.size(); ++i) {
        if (i == 4 || i == 6 || i == 8 || i == 10) out += '-';
        out += fmt::format("{:02x}", b[i]);
    }
    return out;
}

template <std::size_t N> void store_text(char (&field)[N], std::string const& text) {
    std::copy_n(text.begin(), std::min(text.size(), N - 1), field);
}

std::vector<std::uint8_t> serialize(LuksHeader const& h) {
    RawLuks raw{};
    std::ranges::copy(luks_magic, raw.magic);
    raw.version = std::uint16_t(1);
    store_text(raw.cipher_name, h.cipher_name);
    store_text(raw.cipher_mode, h.cipher_mode);
    store_text(raw.hash, h.hash);
    store_text(raw.uuid, h.uuid);
    raw.payload_sector = std::uint32_t(h.payload_offset / sector);
    raw.key_bytes = h.key_bytes;
    std::ranges::copy(h.digest, raw.digest);
    std::ranges::copy(h.digest_salt, raw.digest_salt);
    raw.digest_iterations = h.digest_iterations;
    for (std::size_t i = 0; i < luks_slots; ++i) {
        LuksSlot const& s = h.slots[i];
        raw.slots[i].active = s.active ? slot_enabled : slot_disabled;
        raw.slots[i].iterations = s.iterations;
        std::ranges::copy(s.salt, raw.slots[i].salt);
        raw.slots[i].key_sector = std::uint32_t(s.key_offset / sector);
        raw.slots[i].stripes = s.stripes;
    }
    auto const* bytes = reinterpret_cast<std::uint8_t const*>(&raw);
    return {bytes, bytes + sizeof raw};
}

// Puts `passphrase` into slot `i` of header and area.
Result<void> fill_slot(LuksHeader& h, std::size_t i, Bytes area, ConstBytes master, ConstBytes passphrase,
                       std::uint64_t iter_time_ms) {
    EVP_MD const* hash = TRY(find_hash(h.hash));
    LuksSlot& slot = h.slots[i];
    Bytes material = TRY(slot_material(h, i, area));
    SecretBytes slot_key(h.key_bytes);
    if (RAND_bytes(slot.salt.data(), int(slot.salt.size())) != 1)
        return error("No random numbers for the encryption keys");
    slot.active = true;
    slot.iterations = calibrate(hash, h.key_bytes, iter_time_ms);
    if (!pbkdf2(hash, passphrase, slot.salt, slot.iterations, slot_key) ||
        !split_stripes(hash, master, slot.stripes, material.first(std::size_t(h.key_bytes) * slot.stripes)))
        return error("Could not make the encryption keys");
    std::unique_ptr<SectorCipher> cipher = TRY(make_aes(h.spec, slot_key));
    wipe(slot_key);
    if (!cipher->encrypt(0, material)) return error("Could not encrypt the master key");
    std::ranges::copy(serialize(h), area.begin());
    return {};
}

Result<void> add_key(LuksHeader& h, Bytes area, ConstBytes passphrase, LuksKeyChange const& change) {
    if (!change.new_passphrase) return error("'new-secret' is required to activate a keyslot");
    if (change.old_passphrase) return error("'old-secret' must not be given when activating keyslots");
    std::size_t slot = change.slot.value_or(luks_slots);
    if (slot < luks_slots && h.slots[slot].active && !change.force)
        return error("Refusing to overwrite active keyslot {} - please erase it first", slot);
    for (std::size_t i = 0; slot == luks_slots && i < luks_slots; ++i)
        if (!h.slots[i].active) slot = i;
    if (slot == luks_slots) return error("Can't add a keyslot - all keyslots are in use");
    SecretBytes master = TRY(master_key(h, area, passphrase));
    // What no slot holds yet, QEMU's defaults make.
    h.slots[slot].stripes = stripes_of_new;
    constexpr std::uint64_t default_ms = 2000;
    Result<void> filled =
        fill_slot(h, slot, area, master, *change.new_passphrase, change.iter_time_ms.value_or(default_ms));
    wipe(master);
    return filled;
}

// The slots the change means, by number.
Result<std::vector<std::size_t>> slots_to_erase(LuksHeader const& h, ConstBytes area, LuksKeyChange const& change) {
    std::vector<std::size_t> result;
    for (std::size_t i = 0; i < luks_slots; ++i) {
        if (change.slot && i != *change.slot) continue;
        if (!h.slots[i].active && change.slot && !change.force)
            return error("Given keyslot {} is already erased (inactive) ", i);
        if (!h.slots[i].active) continue;
        bool matches = true;
        if (change.old_passphrase) {
            std::optional<SecretBytes> master = TRY(open_slot(h, i, area, *change.old_passphrase));
            matches = master.has_value();
            if (master) wipe(*master);
        }
        if (matches) result.push_back(i);
        if (!matches && change.slot)
            return error("Given keyslot {} doesn't contain the given old password for erase operation", i);
    }
    if (result.empty() && !change.slot) return error("No keyslots match given (old) password for erase operation");
    return result;
}

Result<void> erase_keys(LuksHeader& h, Bytes area, LuksKeyChange const& change) {
    if (change.new_passphrase) return error("'new-secret' must not be given when erasing keyslots");
    if (change.iter_time_ms) return error("'iter-time' must not be given when erasing keyslots");
    if (!change.slot && !change.old_passphrase)
        return error(
            "To erase keyslot(s), either explicit keyslot index or the password currently contained in them must "
            "be given");
    std::vector<std::size_t> slots = TRY(slots_to_erase(h, area, change));
    auto const active = std::size_t(std::ranges::count_if(h.slots, &LuksSlot::active));
    if (slots.size() >= active && !change.force) {
        if (change.slot)
            return error("Attempt to erase the only active keyslot {} which will erase all the data in the image "
                         "irreversibly - refusing operation",
                         *change.slot);
        return error(
            "All the active keyslots match the (old) password that was given and erasing them will erase all the "
            "data in the image irreversibly - refusing operation");
    }
    for (std::size_t i : slots) {
        Bytes material = TRY(slot_material(h, i, area));
        if (RAND_bytes(material.data(), int(material.size())) != 1)
            return error("No random numbers to overwrite the key with");
        h.slots[i].active = false;
        h.slots[i].iterations = 0;
        h.slots[i].salt = {};
    }
    std::ranges::copy(serialize(h), area.begin());
    return {};
}

} // namespace

Result<std::uint64_t> luks_area_bytes(LuksCreateOptions const& options) {
    return TRY(new_header(options)).payload_offset;
}

Result<NewLuks> make_luks(LuksCreateOptions const& options, ConstBytes passphrase) {
    NewLuks made;
    LuksHeader& h = made.header = TRY(new_header(options));
    EVP_MD const* hash = TRY(find_hash(h.hash));
    SecretBytes master(h.key_bytes);
    h.uuid = random_uuid();
    if (h.uuid.empty() || RAND_bytes(master.data(), int(master.size())) != 1 ||
        RAND_bytes(h.digest_salt.data(), int(h.digest_salt.size())) != 1)
        return error("No random numbers for the encryption keys");
    h.digest_iterations = std::max(minimum_iterations, calibrate(hash, h.digest.size(), options.iter_time_ms) / 8);
    if (!pbkdf2(hash, master, h.digest_salt, h.digest_iterations, h.digest))
        return error("Could not make the encryption keys");
    made.area.resize(h.payload_offset);
    TRY(fill_slot(h, 0, made.area, master, passphrase, options.iter_time_ms));
    wipe(master);
    return made;
}

Result<void> change_luks_keys(LuksHeader& header, Bytes area, ConstBytes passphrase, LuksKeyChange const& change) {
    if (change.slot && *change.slot >= luks_slots)
        return error("Invalid keyslot {} specified, must be between 0 and {}", *change.slot, luks_slots - 1);
    LuksHeader changed = header;
    if (change.activate)
        TRY(add_key(changed, area, passphrase, change));
    else
        TRY(erase_keys(changed, area, change));
    header = std::move(changed);
    return {};
}

} // namespace vmm::block
