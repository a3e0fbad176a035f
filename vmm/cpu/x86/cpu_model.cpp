#include "vmm/cpu/x86/cpu_model.h"

#include "vmm/base/text.h"
#include "vmm/cpu/x86/constants.h"

#include <cpuid.h>

#include <algorithm>
#include <cstring>

namespace vmm::x86 {

namespace {

struct FeatureRow {
    std::string_view name;
    FeatureWord word;
    unsigned bit;
};
constexpr FeatureRow feature_rows[] = {
#define F(identifier, name, word, bit) {name, FeatureWord::word, bit},
#include "vmm/cpu/x86/features.inc"
#undef F
};

// QEMU's other spellings.
constexpr std::pair<std::string_view, std::string_view> aliases[] = {
    {"sse4_1", "sse4.1"},  {"sse4-1", "sse4.1"},   {"sse4_2", "sse4.2"},
    {"sse4-2", "sse4.2"},  {"pni", "sse3"},        {"xd", "nx"},
    {"i64", "lm"},         {"lahf_lm", "lahf-lm"}, {"tsc_adjust", "tsc-adjust"},
    {"ffxsr", "fxsr-opt"}, {"lzcnt", "abm"},       {"sha_ni", "sha-ni"},
    {"cx", "cx8"}};

using Words = FeatureSet;

constexpr void add(Words& words, std::initializer_list<Feature> features) {
    for (Feature f : features)
        words[std::size_t(feature_rows[std::size_t(f)].word)] |= 1u << feature_rows[std::size_t(f)].bit;
}

Words make(std::initializer_list<Feature> features) {
    Words words{};
    add(words, features);
    return words;
}

using enum Feature;

Words base64() {
    return make({fpu, de,    pse,     tsc, msr,  pae, mce,  cx8,  apic, sep,     mtrr, pge, mca,     cmov,
                 pat, pse36, clflush, mmx, fxsr, sse, sse2, sse3, cx16, syscall, nx,   lm,  lahf_lm, hypervisor});
}
Words v2() {
    Words words = base64();
    add(words, {ssse3, sse41, sse42, popcnt});
    return words;
}
Words v3() {
    Words words = v2();
    add(words, {avx, avx2, bmi1, bmi2, f16c, fma, abm, movbe, xsave, xgetbv1});
    return words;
}

struct ModelRow {
    char const* name;
    char const* text;
    char const* vendor;
    unsigned family, model, stepping;
    Words (*words)();
};
constexpr char intel[] = "GenuineIntel", amd[] = "AuthenticAMD";
ModelRow const model_rows[] = {
    {"qemu64", "QEMU Virtual CPU version 2.5+", amd, 15, 107, 1, base64},
    {"qemu32", "QEMU Virtual CPU version 2.5+", intel, 6, 6, 3,
     [] {
         Words w = base64();
         w[std::size_t(FeatureWord::ext_edx)] = w[std::size_t(FeatureWord::ext_ecx)] = 0;
         w[std::size_t(FeatureWord::l1_ecx)] = 1u | 1u << 31;
         return w;
     }},
    {"kvm64", "Common KVM processor", intel, 15, 6, 1, base64},
    {"x86-64-v2", "x86-64 microarchitecture level 2", intel, 6, 44, 1, v2},
    {"x86-64-v3", "x86-64 microarchitecture level 3", intel, 6, 63, 1, v3},
};

} // namespace

bool CpuModel::has(Feature f) const {
    return words[std::size_t(feature_rows[std::size_t(f)].word)] >> feature_rows[std::size_t(f)].bit & 1;
}

void CpuModel::set(Feature f, bool on) {
    FeatureRow const& row = feature_rows[std::size_t(f)];
    std::uint32_t& word = words[std::size_t(row.word)];
    word = on ? word | 1u << row.bit : word & ~(1u << row.bit);
}

std::uint32_t CpuModel::signature() const {
    unsigned base_family = std::min(family, 15u), extended = family - base_family;
    return (stepping & 15) | (model & 15) << 4 | base_family << 8 | (model >> 4) << 16 | extended << 20;
}

FeatureSet tcg_features() {
    FeatureSet set = v3();
    add(set, {vme,         pcid,   x2apic, tsc_deadline, aes,    pclmulqdq, rdrand,    monitor,    fsgsbase,
              tsc_adjust,  smep,   erms,   invpcid,      rdseed, adx,       smap,      clflushopt, clwb,
              sha_ni,      umip,   rdpid,  fsrm,         mmxext, pdpe1gb,   rdtscp,    prefetchw,  wbnoinvd,
              xsaveopt,    xsavec, arat,   Feature::ss,  ht,     topoext,   cr8legacy, cmp_legacy, fdp_excptn_only,
              zero_fcs_fds});
    // Translated code runs these 1:1 on the host, and their interpretation is checked against it: no host support, no
    // feature.
    FeatureSet host = host_features();
    for (Feature f : {avx, avx2, fma, f16c, sha_ni}) {
        FeatureRow const& row = feature_rows[std::size_t(f)];
        if (!(host[std::size_t(row.word)] >> row.bit & 1)) set[std::size_t(row.word)] &= ~(1u << row.bit);
    }
    return set;
}

FeatureSet host_features() {
    FeatureSet set{};
    unsigned a = 0, b = 0, c = 0, d = 0;
    auto word = [&](FeatureWord w) -> std::uint32_t& { return set[std::size_t(w)]; };
    if (__get_cpuid(1, &a, &b, &c, &d)) word(FeatureWord::l1_edx) = d, word(FeatureWord::l1_ecx) = c;
    if (__get_cpuid(6, &a, &b, &c, &d)) word(FeatureWord::l6_eax) = a;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        word(FeatureWord::l7_ebx) = b, word(FeatureWord::l7_ecx) = c, word(FeatureWord::l7_edx) = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) word(FeatureWord::l7_1_eax) = a;
    }
    if (__get_cpuid_count(0xd, 1, &a, &b, &c, &d)) word(FeatureWord::ld_1_eax) = a;
    if (__get_cpuid(0x80000001, &a, &b, &c, &d)) word(FeatureWord::ext_edx) = d, word(FeatureWord::ext_ecx) = c;
    if (__get_cpuid(0x80000008, &a, &b, &c, &d)) word(FeatureWord::l8_ebx) = b;
    word(FeatureWord::l1_ecx) |= 1u << 31; // "hypervisor": a guest always has one
    return set;
}

static void copy_host_identity(CpuModel& model) {
    unsigned a = 0, b = 0, c = 0, d = 0;
    __get_cpuid(0, &a, &b, &c, &d);
    std::uint32_t vendor[3] = {b, d, c};
    model.vendor.assign(reinterpret_cast<char*>(vendor), 12);
    __get_cpuid(1, &a, &b, &c, &d);
    model.family = (a >> 8 & 15) + ((a >> 8 & 15) == 15 ? a >> 20 & 255 : 0);
    model.model = (a >> 4 & 15) | (a >> 16 & 15) << 4;
    model.stepping = a & 15;
    model.brand.clear();
    for (unsigned leaf = 0x80000002; leaf <= 0x80000004; ++leaf) {
        std::uint32_t text[4];
        if (!__get_cpuid(leaf, &text[0], &text[1], &text[2], &text[3])) break;
        model.brand.append(reinterpret_cast<char*>(text), 16);
    }
    model.brand = model.brand.c_str(); // up to the first NUL
    if (__get_cpuid(0x80000008, &a, &b, &c, &d)) model.physical_bits = a & 255;
}

static Result<CpuModel> find_model(std::string_view name, FeatureSet const& supported, CpuIdentity identity) {
    CpuModel model;
    model.name = std::string(name);
    if (name == "max" || name == "host") {
        model.words = supported;
        model.vendor = amd;
        model.brand = "QEMU TCG CPU version 2.5+";
        model.family = 15, model.model = 107, model.stepping = 1;
        if (name == "host" || identity == CpuIdentity::host) copy_host_identity(model);
        return model;
    }
    std::vector<std::string_view> names{"max", "host"};
    for (ModelRow const& row : model_rows) {
        names.push_back(row.name);
        if (name != row.name) continue;
        model.vendor = row.vendor;
        model.family = row.family, model.model = row.model, model.stepping = row.stepping;
        model.brand = row.text;
        model.words = row.words();
        if (identity == CpuIdentity::host) {
            CpuModel host;
            copy_host_identity(host);
            model.vendor = host.vendor;
        }
        return model;
    }
    return error("unable to find CPU model '{}'{}", name, did_you_mean(name, names));
}

static Result<void> apply_feature(CpuModel& model, std::string_view name, bool on, FeatureSet const& supported,
                                  std::vector<std::string>& warnings) {
    std::string key(name);
    std::ranges::replace(key, '_', '-');
    for (auto const& [alias, real] : aliases)
        if (name == alias || key == alias) key = real;
    std::vector<std::string_view> names;
    for (FeatureRow const& row : feature_rows) {
        names.push_back(row.name);
        if (row.name != key) continue;
        std::uint32_t& word = model.words[std::size_t(row.word)];
        word = on ? word | 1u << row.bit : word & ~(1u << row.bit);
        if (on && !(supported[std::size_t(row.word)] >> row.bit & 1))
            warnings.push_back(fmt::format("this engine does not support CPU feature '{}': it stays off", row.name));
        return {};
    }
    return error("Property '{}-x86_64-cpu.{}' not found{}", model.name, name, did_you_mean(key, names));
}

Result<CpuModel> make_cpu_model(std::string_view specification, FeatureSet const& supported,
                                std::vector<std::string>& warnings, CpuIdentity identity) {
    std::size_t comma = specification.find(',');
    CpuModel model = TRY(find_model(specification.substr(0, comma), supported, identity));
    while (comma != std::string_view::npos) {
        specification.remove_prefix(comma + 1);
        comma = specification.find(',');
        std::string_view item = specification.substr(0, comma);
        if (item.empty()) continue;
        bool on = true;
        if (item[0] == '+' || item[0] == '-') {
            on = item[0] == '+';
            item.remove_prefix(1);
        } else if (std::size_t equals = item.find('='); equals != std::string_view::npos) {
            std::string_view value = item.substr(equals + 1);
            item = item.substr(0, equals);
            if (value != "on" && value != "off" && value != "yes" && value != "no" && value != "true" &&
                value != "false") {
                CpuModel tried = model;
                TRY(apply_feature(tried, item, false, supported, warnings)); // first of all it has to be a feature
                return error("Parameter '{}' expects 'on' or 'off', not '{}'", item, value);
            }
            on = value == "on" || value == "yes" || value == "true";
        }
        TRY(apply_feature(model, item, on, supported, warnings));
    }
    for (std::size_t w = 0; w < model.words.size(); ++w) model.words[w] &= supported[w];
    if (!model.has(Feature::xsave))
        for (Feature f : {avx, avx2, fma, f16c, xsaveopt, xsavec, xgetbv1, xsaves}) model.set(f, false);
    if (!model.has(avx))
        for (Feature f : {avx2, fma, f16c, vaes, vpclmulqdq}) model.set(f, false);
    return model;
}

std::vector<std::string> cpu_model_names() {
    std::vector<std::string> names{"max", "host"};
    for (ModelRow const& row : model_rows) names.emplace_back(row.name);
    return names;
}

std::string describe_cpu_models() {
    std::string text = "Available CPUs:\n";
    std::vector<std::pair<std::string, std::string>> rows;
    for (ModelRow const& row : model_rows) rows.emplace_back(row.name, row.text);
    rows.emplace_back("host", "the host's processor, as far as the engine supports it");
    rows.emplace_back("max", "Enables all features supported by the accelerator in the current host");
    std::ranges::sort(rows);
    for (auto const& [name, what] : rows) text += fmt::format("x86 {:<20}  {}\n", name, what);
    text += "\nRecognized CPUID flags:\n";
    std::vector<std::string_view> names;
    for (FeatureRow const& row : feature_rows) names.push_back(row.name);
    std::ranges::sort(names);
    std::string line = " ";
    for (std::string_view name : names) {
        if (line.size() + 1 + name.size() > 75) text += line + "\n", line = " ";
        line += " " + std::string(name);
    }
    return text + line + "\n";
}

// XSAVE components: offset and size in the standard form (as every current processor reports them).
static constexpr struct {
    std::uint32_t offset, size;
} xsave_components[] = {{0, 160},   {160, 256},  {576, 256},   {960, 64}, {1024, 64},
                        {1088, 64}, {1152, 512}, {1664, 1024}, {0, 0},    {2688, 8}};

std::uint32_t xsave_offset(unsigned index, std::uint32_t& size) {
    if (index >= std::size(xsave_components)) return size = 0;
    size = xsave_components[index].size;
    return xsave_components[index].offset;
}

std::uint32_t xsave_size(std::uint64_t components) {
    std::uint32_t end = 576;
    for (unsigned i = 2; i < std::size(xsave_components); ++i)
        if (components >> i & 1) end = std::max(end, xsave_components[i].offset + xsave_components[i].size);
    return end;
}

static std::uint64_t supported_xcr0(CpuModel const& m) {
    std::uint64_t mask = xcr0::x87 | xcr0::sse;
    if (m.has(avx)) mask |= xcr0::avx;
    if (m.has(avx512f)) mask |= xcr0::opmask | xcr0::zmm_hi256 | xcr0::hi16_zmm;
    if (m.has(pku)) mask |= xcr0::pkru;
    return mask;
}

static CpuidResult xsave_leaf(CpuModel const& m, CpuidContext const& c, std::uint32_t subleaf) {
    if (!m.has(Feature::xsave)) return {};
    std::uint64_t all = supported_xcr0(m);
    if (subleaf == 0) return {std::uint32_t(all), xsave_size(c.xcr0), xsave_size(all), std::uint32_t(all >> 32)};
    if (subleaf == 1) {
        std::uint32_t compact = 576;
        for (unsigned i = 2; i < 63; ++i)
            if (c.xcr0 >> i & 1) {
                std::uint32_t size;
                xsave_offset(i, size);
                compact += size;
            }
        return {m.words[std::size_t(FeatureWord::ld_1_eax)], compact, 0, 0};
    }
    if (subleaf > 63 || !(all >> subleaf & 1)) return {};
    std::uint32_t size, offset = xsave_offset(subleaf, size);
    return {size, offset, 0, 0};
}

static CpuidResult text_leaf(std::string const& text, unsigned part) {
    char buffer[48] = {};
    std::memcpy(buffer, text.data(), std::min<std::size_t>(text.size(), sizeof buffer));
    CpuidResult r;
    std::memcpy(&r, buffer + 16 * part, 16);
    return r;
}

// Deterministic cache parameters (leaf 4, Intel): L1d 32K, L1i 32K, L2 4M, L3 16M, as QEMU's models have them.
static CpuidResult cache_leaf(CpuidContext const& c, std::uint32_t subleaf) {
    struct Cache {
        unsigned type, level, ways, sets;
    };
    static constexpr Cache caches[] = {{1, 1, 8, 64}, {2, 1, 8, 64}, {3, 2, 16, 4096}, {3, 3, 16, 16384}};
    if (subleaf >= std::size(caches)) return {};
    Cache const& k = caches[subleaf];
    unsigned sharing = k.level == 3 ? c.cores * c.threads : c.threads;
    auto next_power = [](unsigned v) { return v <= 1 ? 1u : 1u << (32 - __builtin_clz(v - 1)); };
    return {k.type | k.level << 5 | 1u << 8 | (next_power(sharing) - 1) << 14 | (next_power(c.cores) - 1) << 26,
            63u | (k.ways - 1) << 22, k.sets - 1, k.level == 3 ? 4u : 1u};
}

static unsigned log2_ceil(unsigned v) { return v <= 1 ? 0 : 32 - __builtin_clz(v - 1); }

std::uint32_t topology_apic_id(unsigned index, unsigned cores, unsigned threads) {
    unsigned thread_bits = log2_ceil(threads), core_bits = log2_ceil(cores);
    unsigned thread = index % threads, core = index / threads % cores, socket = index / threads / cores;
    return thread | core << thread_bits | socket << (thread_bits + core_bits);
}

// AMD's cache properties (APM vol. 3 E.4.15): the caches of leaves 80000005H and 80000006H.
static CpuidResult amd_cache_leaf(CpuidContext const& c, std::uint32_t subleaf) {
    struct Cache {
        unsigned type, level, ways, sets;
    };
    static constexpr Cache caches[] = {{1, 1, 2, 512}, {2, 1, 2, 512}, {3, 2, 16, 512}, {3, 3, 16, 16384}};
    if (subleaf >= std::size(caches)) return {};
    Cache const& k = caches[subleaf];
    unsigned sharing = k.level == 3 ? c.cores * c.threads : c.threads;
    return {k.type | k.level << 5 | 1u << 8 | (sharing - 1) << 14, 63u | (k.ways - 1) << 22, k.sets - 1, 0};
}

// AMD's place of a thread (APM vol. 3 E.4.16): a socket is one node.
static CpuidResult amd_place_leaf(CpuidContext const& c) {
    unsigned thread_bits = log2_ceil(c.threads), core_bits = log2_ceil(c.cores);
    unsigned core = c.apic_id >> thread_bits & ((1u << core_bits) - 1);
    return {c.apic_id, core | (c.threads - 1) << 8, c.apic_id >> (thread_bits + core_bits) & 255, 0};
}

static CpuidResult topology_leaf(CpuidContext const& c, std::uint32_t subleaf) {
    unsigned thread_bits = log2_ceil(c.threads), core_bits = log2_ceil(c.cores);
    if (subleaf == 0) return {thread_bits, c.threads, 0x100, c.apic_id};
    if (subleaf == 1) return {thread_bits + core_bits, c.threads * c.cores, 0x201, c.apic_id};
    return {0, 0, subleaf & 0xff, c.apic_id};
}

static CpuidResult leaf_one(CpuModel const& m, CpuidContext const& c) {
    CpuidResult r;
    unsigned logical = c.cores * c.threads;
    r.eax = m.signature();
    r.ebx = 8u << 8 | std::min(logical, 255u) << 16 | (c.apic_id & 255) << 24;
    r.ecx = m.words[std::size_t(FeatureWord::l1_ecx)];
    if (c.osxsave) r.ecx |= 1u << 27;
    r.edx = m.words[std::size_t(FeatureWord::l1_edx)];
    if (!c.apic_enabled) r.edx &= ~(1u << 9);
    if (logical > 1) r.edx |= 1u << 28;
    return r;
}

static CpuidResult extended_leaf(CpuModel const& m, CpuidContext const& c, std::uint32_t leaf, std::uint32_t subleaf) {
    auto word = [&](FeatureWord w) { return m.words[std::size_t(w)]; };
    bool is_amd = m.vendor == amd;
    switch (leaf) {
    case 0x80000000: {
        CpuidResult v{is_amd && m.has(topoext) ? 0x8000001e : 0x80000008, 0, 0, 0};
        if (is_amd) {
            std::uint32_t part[3];
            std::memcpy(part, m.vendor.data(), 12);
            v.ebx = part[0], v.edx = part[1], v.ecx = part[2];
        }
        return v;
    }
    case 0x80000001: {
        CpuidResult r{is_amd ? m.signature() : 0, 0, word(FeatureWord::ext_ecx), word(FeatureWord::ext_edx)};
        if (is_amd)
            r.edx |= word(FeatureWord::l1_edx) & 0x0183f3ff; // AMD repeats the common bits
        else
            r.ecx &= ~(1u << 22);                         // the leaves are AMD's
        constexpr std::uint32_t cmp_legacy_bit = 1u << 1; // leaf 1 counts cores: it follows from the machine
        r.ecx = is_amd && c.cores * c.threads > 1 ? r.ecx | cmp_legacy_bit : r.ecx & ~cmp_legacy_bit;
        return r;
    }
    case 0x80000002:
    case 0x80000003:
    case 0x80000004: return text_leaf(m.brand, leaf - 0x80000002);
    case 0x80000005: return is_amd ? CpuidResult{0x01ff01ff, 0x01ff01ff, 0x40020140, 0x40020140} : CpuidResult{};
    case 0x80000006:
        return is_amd ? CpuidResult{0, 0x42004200, 0x02008140, 0x00808140} : CpuidResult{0, 0, 0x02008140, 0};
    case 0x80000007: return {0, 0, 0, 1u << 8}; // invariant TSC
    case 0x80000008: {
        unsigned logical = c.cores * c.threads;
        return {m.physical_bits | m.linear_bits << 8, word(FeatureWord::l8_ebx),
                is_amd && logical > 1 ? (log2_ceil(c.threads) + log2_ceil(c.cores)) << 12 | (logical - 1) : 0, 0};
    }
    case 0x8000001d: return is_amd && m.has(topoext) ? amd_cache_leaf(c, subleaf) : CpuidResult{};
    case 0x8000001e: return is_amd && m.has(topoext) ? amd_place_leaf(c) : CpuidResult{};
    default: return {};
    }
}

CpuidResult cpuid(CpuModel const& m, CpuidContext const& c, std::uint32_t leaf, std::uint32_t subleaf) {
    auto word = [&](FeatureWord w) { return m.words[std::size_t(w)]; };
    std::uint32_t max_basic = m.has(Feature::xsave) ? 0xd : 0xb;
    if (leaf >= 0x80000000) return extended_leaf(m, c, leaf, subleaf);
    if (leaf >= 0x40000000 && leaf <= 0x400000ff && m.has(hypervisor)) {
        if (leaf == 0x40000000) {
            CpuidResult r{0x40000001, 0, 0, 0};
            std::memcpy(&r.ebx, "TCGTCGTCGTCG", 12); // what guests know QEMU's TCG by
            return r;
        }
        return {};
    }
    if (leaf > max_basic) leaf = max_basic; // SDM: out-of-range leaves give the highest basic leaf
    switch (leaf) {
    case 0: {
        std::uint32_t part[3];
        std::memcpy(part, m.vendor.data(), 12);
        return {max_basic, part[0], part[2], part[1]};
    }
    case 1: return leaf_one(m, c);
    case 2: return {1, 0, 0x4d, 0x2c307d};
    case 4: return m.vendor == amd ? CpuidResult{} : cache_leaf(c, subleaf);
    case 5: return m.has(monitor) ? CpuidResult{64, 64, 3, 0} : CpuidResult{};
    case 6: return {word(FeatureWord::l6_eax), 0, 0, 0};
    case 7:
        if (subleaf == 0) {
            std::uint32_t ecx = word(FeatureWord::l7_ecx) & ~(1u << 4);
            if (c.ospke && m.has(pku)) ecx |= 1u << 4;
            return {1, word(FeatureWord::l7_ebx), ecx, word(FeatureWord::l7_edx)};
        }
        return subleaf == 1 ? CpuidResult{word(FeatureWord::l7_1_eax), 0, 0, 0} : CpuidResult{};
    case 0xb: return topology_leaf(c, subleaf);
    case 0xd: return xsave_leaf(m, c, subleaf);
    default: return {};
    }
}

} // namespace vmm::x86
