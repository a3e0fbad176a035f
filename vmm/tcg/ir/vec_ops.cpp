// The table of vector operations and how a 256-bit one is made of lanes.
#include "vmm/tcg/ir/vec_ops.h"

#include "vmm/tcg/ir/vec_lanes.h"

#include <string_view>

namespace vmm::tcg::ir {

static constexpr VecInfo make(char const* name, VecPrefix prefix, VecMap map, unsigned opcode, bool w,
                              VecEncodings encodings, VecForm form, std::uint8_t memory, VecFeature feature,
                              std::string_view traits) {
    auto has = [&](char c) { return traits.find(c) != std::string_view::npos; };
    return {name,
            prefix,
            map,
            std::uint8_t(opcode),
            std::uint8_t(opcode >> 8),
            w,
            encodings,
            form,
            memory,
            feature,
            has('F'),
            has('U'),
            has('I'),
            has('X'),
            has('Y'),
            has('C')};
}

static constexpr VecInfo infos[] = {
#define VEC(name, prefix, map, opcode, w, encodings, form, memory, feature, traits)                                    \
    make(#name, VecPrefix::prefix, VecMap::map, opcode, w, VecEncodings::encodings, VecForm::form, memory,             \
         VecFeature::feature, traits),
#include "vmm/tcg/ir/vec_ops.inc"
#undef VEC
};

VecInfo const& vec_info(VecOp op) { return infos[unsigned(op)]; }

VecFn const vec_functions[] = {
#define VEC(name, prefix, map, opcode, w, encodings, form, memory, feature, traits) vec::name,
#include "vmm/tcg/ir/vec_ops.inc"
#undef VEC
};

void run_vec(VecOp op, unsigned bytes, void* result, void const* a, void const* b, void const* c, std::uint8_t imm,
             VecEnv& env) {
    VecInfo const& info = infos[unsigned(op)];
    VecFn fn = vec_functions[unsigned(op)];
    env.bytes = bytes;
    env.lane = 0;
    if (bytes == 16 || info.crossing || info.wide_source) {
        fn(result, a, b, c, imm, env);
        return;
    }
    auto upper = [](void const* p) { return p ? static_cast<char const*>(p) + 16 : nullptr; };
    char count_copy[16];
    if (info.narrow_count) b = std::memcpy(count_copy, b, sizeof count_copy); // the result may overlap it
    fn(result, a, b, c, imm, env);
    env.lane = 1;
    fn(static_cast<char*>(result) + 16, upper(a), info.narrow_count ? b : upper(b), upper(c), imm, env);
}

} // namespace vmm::tcg::ir
