// CpuModel: what a guest's CPU claims to be: CPUID leaves and the features behind them; `-cpu` models and their +/-
// features.
#pragma once
#include "vmm/base/result.h"

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm::x86 {

// Feature bits by CPUID word, F(name, word, bit): names are QEMU's.
enum class FeatureWord : std::uint8_t {
    l1_edx,
    l1_ecx,
    l7_ebx,
    l7_ecx,
    l7_edx,
    l7_1_eax,
    ext_edx,
    ext_ecx,
    l8_ebx,
    ld_1_eax,
    l6_eax,
    count
};

enum class Feature : std::uint16_t {
#define F(name, text, word, bit) name,
#include "vmm/cpu/x86/features.inc"
#undef F
    count
};

struct CpuModel {
    std::string name;
    std::string vendor; // 12 characters
    unsigned family = 15, model = 107, stepping = 1;
    std::string brand; // up to 48 characters
    unsigned physical_bits = 40, linear_bits = 48;
    std::array<std::uint32_t, std::size_t(FeatureWord::count)> words{};

    bool has(Feature f) const;
    void set(Feature f, bool on);
    std::uint32_t signature() const; // CPUID.1:EAX
};

// Values that CPUID reports but that are not the model's: they come from the running machine.
struct CpuidContext {
    std::uint32_t apic_id = 0;
    unsigned threads = 1, cores = 1; // per core, per socket; apic_id is made of them by topology_apic_id()
    bool osxsave = false, apic_enabled = true, ospke = false;
    std::uint64_t xcr0 = 1, xss = 0;
    std::uint64_t tsc_hz = 0;
};
// The APIC id of CPU `index` where sockets hold `cores` of `threads` each: the numbers of thread, core and socket, each
// in as many bits as it needs (SDM vol. 3 9.9.1), so ids have gaps unless both are powers of two.
std::uint32_t topology_apic_id(unsigned index, unsigned cores, unsigned threads);

struct CpuidResult {
    std::uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};
CpuidResult cpuid(CpuModel const& model, CpuidContext const& context, std::uint32_t leaf, std::uint32_t subleaf);

// What an engine can execute: a model is cut down to it, with a warning naming each feature the user asked for and
// lost.
using FeatureSet = std::array<std::uint32_t, std::size_t(FeatureWord::count)>;
// Everything the translating engine implements. `host` limits it to what the host CPU has where translated code maps
// 1:1.
FeatureSet tcg_features();
// The host CPU's own features, by CPUID.
FeatureSet host_features();

// Whose processor a guest is shown. `host`: its vendor in every model and all of it in "max", for a guest that runs on
// the host's CPU itself and chooses instructions and ways around errata by what it takes that for.
enum class CpuIdentity : std::uint8_t { model, host };

// Resolves "-cpu MODEL[,+feature,-feature,feature=on|off]" to a model supported by `supported`. `warnings` gets one
// line for each feature that had to be dropped. Errors: unknown model or feature, with the nearest name.
Result<CpuModel> make_cpu_model(std::string_view specification, FeatureSet const& supported,
                                std::vector<std::string>& warnings, CpuIdentity identity = CpuIdentity::model);

// Names that -cpu accepts.
std::vector<std::string> cpu_model_names();
// "-cpu help": the text of the list.
std::string describe_cpu_models();

// Smallest XSAVE area for the enabled components (CPUID.0DH).
std::uint32_t xsave_size(std::uint64_t components);
// Offset of component `index` in the standard form; size in `size`.
std::uint32_t xsave_offset(unsigned index, std::uint32_t& size);

} // namespace vmm::x86
