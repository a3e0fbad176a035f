#include "random_ir.h"

#include "ir_machine.h"
#include "vmm/tcg/ir/op_info.h"
#include "vmm/tcg/ir/vec_ops.h"

namespace vmm::tcg::test {

using namespace ir;

std::uint64_t interesting(std::mt19937_64& random) {
    std::uint64_t r = random();
    switch (r >> 60) {
    case 0: return 0;
    case 1: return ~0ull;
    case 2: return 1ull << (r & 63);
    case 3: return (1ull << (r & 63)) - 1;
    case 4: return ~(1ull << (r & 63));
    case 5: return r & 0xff;
    case 6: return std::uint64_t(std::int64_t(std::int8_t(r)));
    case 7: return 0x8000000000000000ull >> (r & 32);
    case 8: return std::uint32_t(r);
    case 9: return std::uint64_t(std::int64_t(std::int32_t(r)));
    default: return random();
    }
}

namespace {

constexpr std::uint64_t cf = 1, pf = 4, af = 16, zf = 64, sf = 128, of = 0x800, all_flags = cf | pf | af | zf | sf | of;

class Maker {
public:
    Maker(std::mt19937_64& random, RandomOptions const& options) : random_(random), options_(options) {}

    RandomProgram make() {
        RandomProgram p;
        unsigned blocks = 1 + pick(options_.max_blocks);
        for (unsigned k = 0; k < blocks; ++k) make_block(p.blocks[std::int32_t(k * 64)], k, blocks);
        return p;
    }

private:
    unsigned pick(unsigned n) { return unsigned(random_() % n); }
    bool chance(unsigned one_in) { return pick(one_in) == 0; }
    Type int_type() { return Type(pick(4)); }
    Type wide_type() { return Type(1 + pick(3)); }
    unsigned reg() { return pick(16); }

    ValueId value(Type t) {
        if (chance(4)) return b->constant(t, std::int64_t(interesting(random_)));
        if (!recent_.empty() && chance(4)) {
            ValueId v = recent_[pick(unsigned(recent_.size()))];
            if (b->type_of(v) == t) return v;
            if (b->type_of(v) > t && b->type_of(v) <= Type::i64) return b->trunc(t, v);
        }
        if (t == Type::i8 && chance(3)) return b->get(t, gpr_slot(pick(4)) + 1);
        return b->get(t, gpr_slot(reg()));
    }
    void put(ValueId v) {
        Type t = b->type_of(v);
        recent_.push_back(v);
        if (chance(8)) return; // unused or used later
        if (t == Type::i32 && !chance(6)) return b->put(Type::i64, gpr_slot(reg()), b->zext(Type::i64, v));
        if (t == Type::i8 && chance(3)) return b->put(t, gpr_slot(pick(4)) + 1, v);
        b->put(t, gpr_slot(reg()), v);
    }
    void mask_flags(std::uint64_t keep) {
        if (keep == all_flags) return;
        ValueId image = b->emit({.op = Opcode::get_flags, .type = Type::i64});
        b->emit({.op = Opcode::put_flags,
                 .a = b->binary(Opcode::and_, Type::i64, image, b->constant(Type::i64, std::int64_t(keep)))});
    }
    ValueId address() {
        std::uint64_t at = ram_base + (chance(12) ? 4096 * pick(8) + 4096 - pick(20) : random_() % (4096 * ram_pages));
        ValueId base = b->constant(Type::i64, std::int64_t(at));
        switch (pick(4)) {
        case 0: return base;
        case 1: { // a register brought into range
            ValueId r =
                b->binary(Opcode::and_, Type::i64, b->get(Type::i64, gpr_slot(reg())), b->constant(Type::i64, 0x1ff8));
            return b->lea(Type::i64, r, none, 0, std::int64_t(ram_base + pick(64)));
        }
        case 2: {
            ValueId r =
                b->binary(Opcode::and_, Type::i64, b->get(Type::i64, gpr_slot(reg())), b->constant(Type::i64, 0xff));
            return b->lea(Type::i64, base, r, pick(4), std::int64_t(pick(256)) - 128);
        }
        default: {
            ValueId r =
                b->binary(Opcode::and_, Type::i32, b->get(Type::i32, gpr_slot(reg())), b->constant(Type::i32, 0x1fff));
            return b->zext(Type::i64, b->lea(Type::i32, r, none, 0, std::int64_t(ram_base)));
        }
        }
    }

    void integer_operation() {
        static constexpr Opcode binary[] = {Opcode::add,  Opcode::sub, Opcode::and_, Opcode::or_,
                                            Opcode::xor_, Opcode::adc, Opcode::sbb};
        static constexpr Opcode unary[] = {Opcode::inc, Opcode::dec, Opcode::neg, Opcode::not_};
        static constexpr Opcode shifts[] = {Opcode::shl, Opcode::shr, Opcode::sar, Opcode::rol,
                                            Opcode::ror, Opcode::rcl, Opcode::rcr};
        bool flags = !chance(4);
        switch (pick(16)) {
        case 0:
        case 1:
        case 2:
        case 3: {
            Type t = int_type();
            ValueId x = value(t), y = chance(8) ? x : value(t);
            ValueId v = b->binary(binary[pick(7)], t, x, y, flags);
            if (!flags || !chance(4)) put(v);
            return;
        }
        case 4: {
            Type t = int_type();
            Opcode op = unary[pick(4)];
            return put(b->unary(op, t, value(t), flags && op != Opcode::not_));
        }
        case 5:
        case 6: return shift(shifts[pick(7)], flags);
        case 7: { // double shifts
            Type t = wide_type();
            ValueId x = value(t), y = value(t), count = chance(2) ? b->constant(Type::i8, pick(32)) : value(Type::i8);
            if (t == Type::i16) count = b->binary(Opcode::and_, Type::i8, count, b->constant(Type::i8, 15));
            ValueId v = b->emit({.op = chance(2) ? Opcode::shld : Opcode::shrd,
                                 .type = t,
                                 .sets_flags = flags,
                                 .a = x,
                                 .b = y,
                                 .c = count});
            put(v);
            if (flags) mask_flags(all_flags & ~(af | of));
            return;
        }
        case 8: return multiply(flags);
        case 9: return bits(flags);
        case 10: { // extensions
            Type from = Type(pick(3)), to = Type(unsigned(from) + 1 + pick(3 - unsigned(from)));
            ValueId v = value(from);
            return put(chance(2) ? b->zext(to, v) : b->sext(to, v));
        }
        case 11: {
            Type t = chance(2) ? Type::i64 : Type::i32;
            ValueId x = value(t), y = chance(2) ? none : value(t);
            return put(b->lea(t, x, y, y == none ? 0 : pick(4),
                              chance(8) ? std::int64_t(interesting(random_)) : std::int64_t(pick(4096)) - 2048));
        }
        case 12: return put(b->setcc(Cond(pick(16))));
        case 13: {
            Type t = wide_type();
            ValueId x = value(t), y = value(t);
            if (chance(2)) return put(b->select_cc(t, Cond(pick(16)), x, y));
            Type s = int_type();
            ValueId c = value(s);
            return put(b->emit({.op = Opcode::select_nz, .type = t, .aux = std::uint8_t(s), .a = c, .b = x, .c = y}));
        }
        case 14:
            if (chance(2)) return put(b->emit({.op = Opcode::get_flags, .type = Type::i64}));
            b->emit({.op = Opcode::put_flags, .a = value(Type::i64)});
            return;
        default: {
            Type t = wide_type();
            return put(b->unary(Opcode::bswap, t, value(t)));
        }
        }
    }

    void shift(Opcode op, bool flags) {
        Type t = int_type();
        ValueId x = value(t);
        bool known = chance(2);
        unsigned n = pick(40);
        ValueId count = known ? b->constant(Type::i8, n) : chance(2) ? b->get(Type::i8, gpr_slot(1)) : value(Type::i8);
        ValueId v = b->emit({.op = op, .type = t, .sets_flags = flags, .a = x, .b = count});
        put(v);
        bool simple = op == Opcode::shl || op == Opcode::shr || op == Opcode::sar;
        if (flags) mask_flags(all_flags & ~of & ~(simple ? af : 0));
        // CF too is undefined when a byte or word is shifted by more than its width.
        if (flags && simple && t < Type::i32) mask_flags(all_flags & ~(of | af | cf));
    }
    void multiply(bool flags) {
        if (chance(3)) {
            Type t = wide_type();
            put(b->binary(Opcode::mul, t, value(t), value(t), flags));
            if (flags) mask_flags(cf | of);
            return;
        }
        Type t = int_type();
        bool divide = chance(2);
        if (divide) {
            ValueId hi = chance(2) ? b->constant(t, 0) : value(t), lo = value(t), d = value(t);
            ValueId q = b->emit({.op = chance(2) ? Opcode::udiv2 : Opcode::sdiv2, .type = t, .a = hi, .b = lo, .c = d});
            return put_pair(q, b->unary(Opcode::high, t, q));
        }
        ValueId x = chance(2) ? b->get(t, gpr_slot(0)) : value(t), y = value(t);
        ValueId low = b->binary(chance(2) ? Opcode::umul2 : Opcode::smul2, t, x, y, flags);
        put_pair(low, b->unary(Opcode::high, t, low));
        if (flags) mask_flags(cf | of);
    }
    void put_pair(ValueId low, ValueId high) {
        if (chance(2)) { // as x86 does it
            Type t = b->type_of(low);
            if (t == Type::i32) {
                b->put(Type::i64, gpr_slot(0), b->zext(Type::i64, low));
                b->put(Type::i64, gpr_slot(2), b->zext(Type::i64, high));
            } else {
                b->put(t, gpr_slot(0), low);
                b->put(t, t == Type::i8 ? gpr_slot(0) + 1 : gpr_slot(2), high);
            }
            return;
        }
        put(low);
        put(high);
    }
    void bits(bool flags) {
        Type t = wide_type();
        switch (pick(5)) {
        case 0: {
            ValueId v = b->binary(chance(2) ? Opcode::bsf : Opcode::bsr, t, value(t), value(t), flags);
            put(v);
            if (flags) mask_flags(zf);
            return;
        }
        case 1: {
            static constexpr Opcode ops[] = {Opcode::tzcnt, Opcode::lzcnt, Opcode::popcnt};
            Opcode op = ops[pick(3)];
            put(b->unary(op, t, value(t), flags));
            if (flags) mask_flags(op == Opcode::popcnt ? all_flags : cf | zf);
            return;
        }
        case 2: {
            static constexpr Opcode ops[] = {Opcode::bt, Opcode::bts, Opcode::btr, Opcode::btc};
            Opcode op = ops[pick(4)];
            ValueId x = value(t), y = value(t);
            if (op == Opcode::bt)
                b->emit({.op = op, .type = t, .sets_flags = true, .a = x, .b = y});
            else
                put(b->binary(op, t, x, y, flags));
            return;
        }
        default: break;
        }
        t = chance(2) ? Type::i64 : Type::i32;
        static constexpr Opcode two[] = {Opcode::andn, Opcode::pdep, Opcode::pext, Opcode::bextr, Opcode::bzhi};
        static constexpr Opcode one[] = {Opcode::blsr, Opcode::blsi, Opcode::blsmsk};
        Opcode op = chance(2) ? two[pick(5)] : one[pick(3)];
        if (op == Opcode::pdep || op == Opcode::pext) return put(b->binary(op, t, value(t), value(t)));
        bool has_two = op == Opcode::andn || op == Opcode::bextr || op == Opcode::bzhi;
        put(has_two ? b->binary(op, t, value(t), value(t), flags) : b->unary(op, t, value(t), flags));
        if (flags) mask_flags(op == Opcode::bextr ? zf | cf | of : cf | zf | sf | of);
    }

    void memory_operation() {
        Type t = int_type();
        switch (pick(6)) {
        case 5: return fields();
        case 0:
        case 1: {
            std::uint8_t attributes = chance(8) ? std::uint8_t(mem_for_write) : 0;
            ValueId v = b->load(t, address(), attributes);
            if (chance(3)) { // and an operation on it
                ValueId r = b->binary(chance(2) ? Opcode::add : Opcode::sub, t, value(t), v, true);
                return put(r);
            }
            return put(v);
        }
        case 2: {
            ValueId v = value(t);
            b->store(t, address(), v);
            return;
        }
        case 3: { // push and pop shapes
            ValueId top = b->get(Type::i64, gpr_slot(4));
            ValueId in_range = b->binary(Opcode::and_, Type::i64, top, b->constant(Type::i64, 0x3ff8));
            ValueId sp = b->lea(Type::i64, in_range, none, 0, std::int64_t(ram_base));
            if (chance(2)) {
                ValueId v = b->load(Type::i64, sp);
                b->put(Type::i64, gpr_slot(4), b->lea(Type::i64, sp, none, 0, 8));
                b->put(Type::i64, gpr_slot(reg()), v);
            } else {
                ValueId at = b->lea(Type::i64, sp, none, 0, -8), v = b->get(Type::i64, gpr_slot(reg()));
                b->store(Type::i64, at, v);
                b->put(Type::i64, gpr_slot(4), at);
            }
            return;
        }
        default: return read_modify_write(t);
        }
    }
    // Several accesses near one address, which may be spoiled on the way.
    void fields() {
        ValueId base = address();
        unsigned const holder = reg();
        b->put(Type::i64, gpr_slot(holder), base);
        for (unsigned n = 2 + pick(5); n--;) {
            ValueId from = chance(2) ? base : b->get(Type::i64, gpr_slot(holder));
            std::int64_t by = chance(10) ? std::int64_t(pick(8000)) - 4000 : std::int64_t(pick(64)) - 32;
            ValueId at = b->lea(Type::i64, from, none, 0, by);
            Type t = int_type();
            if (chance(2)) {
                ValueId v = b->load(t, at, chance(8) ? std::uint8_t(mem_for_write) : 0);
                put(v);
            } else {
                ValueId v = value(t);
                b->store(t, at, v);
            }
            if (chance(3)) integer_operation();
        }
    }
    void read_modify_write(Type t) {
        if (chance(4)) {
            ValueId expected = chance(2) ? b->get(t, gpr_slot(0)) : value(t), desired = value(t), at = address();
            ValueId old = b->emit({.op = Opcode::cmpxchg,
                                   .type = t,
                                   .sets_flags = true,
                                   .memory = mem_lock,
                                   .a = at,
                                   .b = expected,
                                   .c = desired});
            put(old);
            return;
        }
        Opcode op =
            Opcode(unsigned(Opcode::rmw_add) + pick(unsigned(Opcode::rmw_xchg) - unsigned(Opcode::rmw_add) + 1));
        bool needs = info(op).args.size() == 2;
        ValueId v = needs ? value(t) : none, at = address();
        bool flags = info(op).may_set_flags && !chance(4);
        bool carry = op == Opcode::rmw_adc || op == Opcode::rmw_sbb;
        ValueId old = b->emit({.op = op,
                               .type = t,
                               .sets_flags = flags || carry,
                               .memory = std::uint8_t(chance(2) ? mem_lock : 0),
                               .a = at,
                               .b = v});
        if (chance(2)) put(old);
    }

    ValueId vector(Type t) {
        if (!vectors_.empty() && chance(3)) {
            ValueId v = vectors_[pick(unsigned(vectors_.size()))];
            if (b->type_of(v) == t) return v;
        }
        return b->get(t, vec_slot(reg()));
    }
    void put_vector(ValueId v) {
        vectors_.push_back(v);
        if (!chance(6)) b->put(b->type_of(v), vec_slot(reg()), v);
        if (chance(8)) b->put(Type::i64, vec_slot(reg()) + 16, b->constant(Type::i64, 0));
    }
    static bool approximate(VecOp op) {
        return op == VecOp::rsqrtps || op == VecOp::rsqrtss || op == VecOp::rcpps || op == VecOp::rcpss;
    }
    void vector_operation() {
        if (chance(6)) return vector_memory();
        VecOp op = VecOp(pick(unsigned(VecOp::count)));
        if (approximate(op)) return;
        VecInfo const& n = vec_info(op);
        std::int64_t imm = n.immediate ? std::int64_t(random_() & 0xff) : 0;
        if (op == VecOp::cmpps || op == VecOp::cmppd || op == VecOp::cmpss || op == VecOp::cmpsd) imm &= 7;
        Type t = Type::v128;
        bool scalar = n.memory == 4 || n.memory == 8;
        if (n.encodings != VecEncodings::sse && !scalar && n.form != VecForm::store_form && !n.wide_source &&
            n.feature != VecFeature::aes && n.feature != VecFeature::pclmul && op != VecOp::phminposuw &&
            op != VecOp::dppd && op != VecOp::cvtpd2ps && op != VecOp::cvtpd2dq && op != VecOp::cvttpd2dq &&
            op != VecOp::movhlps && chance(3))
            t = Type::v256;
        if (op == VecOp::vperm2f128 || op == VecOp::vpermd || op == VecOp::vpermq || op == VecOp::vbroadcastsd)
            t = Type::v256;
        Type source = n.wide_source ? Type::v256 : t;
        auto make = [&](Opcode o, Type result, ValueId x, ValueId y, ValueId z, bool flags = false) {
            return b->emit({.op = o,
                            .type = result,
                            .sets_flags = flags,
                            .vec_op = std::uint16_t(op),
                            .a = x,
                            .b = y,
                            .c = z,
                            .imm = imm});
        };
        switch (n.form) {
        case VecForm::unary:
        case VecForm::store_form:
        case VecForm::shift: return put_vector(make(Opcode::vec, t, vector(source), none, none));
        case VecForm::binary:
            return put_vector(make(Opcode::vec, t, vector(t), vector(n.narrow_count ? Type::v128 : t), none));
        case VecForm::mask:
        case VecForm::fused: return put_vector(make(Opcode::vec, t, vector(t), vector(t), vector(t)));
        case VecForm::to_gpr:
        case VecForm::to_gpr_rm:
            return put(make(Opcode::vec_to_gpr, chance(2) || n.w ? Type::i64 : Type::i32,
                            vector(source == Type::v256 && n.wide_source ? source : Type::v128), none, none));
        case VecForm::from_gpr: {
            bool fresh = op == VecOp::movd_from_gpr || op == VecOp::movq_from_gpr;
            ValueId x = fresh ? none : vector(Type::v128);
            return put_vector(make(Opcode::gpr_to_vec, Type::v128, x, b->zext(Type::i64, value(int_type())), none));
        }
        case VecForm::compare:
            source = n.wide_source ? Type::v256 : Type::v128;
            make(Opcode::vec_to_gpr, Type::i32, vector(source), vector(source), none, true);
            return;
        }
    }
    void vector_memory() {
        Type t = chance(2) ? Type::v128 : Type::v256;
        std::uint8_t attributes = chance(8) ? std::uint8_t(mem_aligned) : 0;
        if (chance(2)) return put_vector(b->load(t, address(), attributes));
        ValueId v = vector(t);
        b->store(t, address(), v, attributes);
    }
    void call() {
        switch (pick(4)) {
        case 0: return put(b->call(h_pure, value(Type::i64), value(Type::i64), value(Type::i64)));
        case 1: return put(b->call(h_swap, b->constant(Type::i64, reg()), b->constant(Type::i64, reg())));
        case 2: return put(b->call(h_fault, value(Type::i64)));
        default: return put(b->call(h_sum));
        }
    }

    void make_block(Block& block, unsigned index, unsigned blocks) {
        Builder builder(block);
        b = &builder;
        recent_.clear(), vectors_.clear();
        block.start = std::int32_t(index * 64);
        unsigned count = 1 + pick(options_.max_instructions);
        for (unsigned k = 0; k < count; ++k) {
            b->emit({.op = Opcode::insn_start, .aux = 2, .imm = block.start + std::int64_t(k)});
            if (options_.memory && chance(4))
                memory_operation();
            else if (options_.vectors && chance(4))
                vector_operation();
            else if (options_.calls && chance(24))
                call();
            else
                integer_operation();
        }
        block.guest_insns = std::uint16_t(count);
        block.guest_bytes = std::uint16_t(count);
        end(block, index, blocks);
    }
    void end(Block& block, unsigned index, unsigned blocks) {
        auto somewhere = [&] { return std::int32_t((index + 1 + pick(3)) * 64); };
        unsigned last = unsigned(block.start) + block.guest_insns - 1;
        if (index && chance(3)) { // a loop that ends
            b->emit({.op = Opcode::insn_start, .aux = 2, .imm = last + 1});
            ValueId fuel = b->lea(Type::i64, b->get(Type::i64, fuel_slot), none, 0, -1);
            b->put(Type::i64, fuel_slot, fuel);
            if (chance(2)) {
                block.terminal = BranchNonZero{.value = fuel,
                                               .type = Type::i64,
                                               .taken = std::int32_t(pick(index + 1) * 64),
                                               .not_taken = std::int32_t(blocks * 64)};
            } else {
                b->binary(Opcode::sub, Type::i64, fuel, b->constant(Type::i64, 0), true);
                block.terminal = Branch{
                    .cc = Cond::g, .taken = std::int32_t(pick(index + 1) * 64), .not_taken = std::int32_t(blocks * 64)};
            }
            return;
        }
        switch (pick(5)) {
        case 0: block.terminal = Jump{.target = somewhere()}; return;
        case 1:
        case 2: block.terminal = Branch{.cc = Cond(pick(16)), .taken = somewhere(), .not_taken = somewhere()}; return;
        case 3: {
            Type t = int_type();
            ValueId v = value(t);
            block.terminal = BranchNonZero{.value = v, .type = t, .taken = somewhere(), .not_taken = somewhere()};
            return;
        }
        default: {
            ValueId to = b->constant(Type::i64, 0x400000 + somewhere());
            if (chance(2)) to = b->pc(somewhere());
            block.terminal = Indirect{.target = to, .kind = IndirectKind::jump};
        }
        }
    }

    std::mt19937_64& random_;
    RandomOptions const& options_;
    Builder* b = nullptr;
    std::vector<ValueId> recent_, vectors_;
};

} // namespace

RandomProgram random_program(std::mt19937_64& random, RandomOptions const& options) {
    return Maker(random, options).make();
}

} // namespace vmm::tcg::test
