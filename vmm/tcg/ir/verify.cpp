#include "vmm/tcg/ir/verify.h"

#include "vmm/tcg/ir/op_info.h"

#include <fmt/core.h>

#include <array>

namespace vmm::tcg::ir {
namespace {

bool is_integer(Type t) { return t <= Type::i64; }

class Verifier {
public:
    explicit Verifier(Block const& block) : block_(block) {}

    std::optional<std::string> run() {
        for (at_ = 0; at_ < block_.insts.size() && !problem_; ++at_) check_inst(block_.insts[at_]);
        if (!problem_ && starts_ != block_.guest_insns) fail("guest_insns does not count the insn_starts");
        if (!problem_) check_terminal();
        return problem_;
    }

private:
    void fail(std::string_view what) {
        if (!problem_) problem_ = fmt::format("instruction {}: {}", at_, what);
    }
    void require(bool condition, std::string_view what) {
        if (!condition) fail(what);
    }

    Type type_of(ValueId v) const { return block_.insts[v].type; }
    bool is_value(ValueId v) const { return v < at_ && v < block_.insts.size() && info(block_.insts[v].op).has_result; }

    void check_inst(Inst const& inst) {
        OpInfo const& op = info(inst.op);
        check_arguments(inst, op);
        if (problem_) return;
        require(!inst.sets_flags || op.may_set_flags, "may not set flags");
        check_types(inst);
        check_order(inst, op);
    }

    // Which arguments may be absent.
    static bool optional(Opcode op, unsigned index) {
        switch (op) {
        case Opcode::lea: return index == 1;
        case Opcode::vec:
        case Opcode::call: return true;
        case Opcode::vec_to_gpr: return index == 1;
        case Opcode::gpr_to_vec: return index == 0;
        default: return false;
        }
    }

    void check_arguments(Inst const& inst, OpInfo const& op) {
        std::array<ValueId, 3> const args = {inst.a, inst.b, inst.c};
        for (unsigned i = 0; i < 3; ++i) {
            ValueId const v = args[i];
            if (v == none) {
                require(i >= op.args.size() || optional(inst.op, i), "an argument is missing");
                continue;
            }
            if (i >= op.args.size()) return fail("too many arguments");
            if (!is_value(v)) return fail("an argument is not defined before its use");
            Type const t = type_of(v);
            switch (op.args[i]) {
            case 't': require(t == inst.type, "an argument's type differs from the instruction's"); break;
            case 'b': require(t == Type::i8, "an argument is not i8"); break;
            case 'q': require(t == Type::i64, "an argument is not i64"); break;
            case 'x': require(!is_integer(t), "an argument is not a vector"); break;
            default: break;
            }
        }
    }

    void check_types(Inst const& inst) {
        auto argument_is_aux = [&] { return unsigned(type_of(inst.a)) == inst.aux; };
        switch (inst.op) {
        case Opcode::zext:
        case Opcode::sext:
            return require(argument_is_aux() && type_of(inst.a) < inst.type && is_integer(inst.type), "bad widening");
        case Opcode::trunc:
            return require(type_of(inst.a) > inst.type && is_integer(type_of(inst.a)), "bad truncation");
        case Opcode::select_nz:
            require(argument_is_aux(), "aux is not the condition's type");
            return require(type_of(inst.b) == inst.type && type_of(inst.c) == inst.type, "bad selection");
        case Opcode::high: return check_high(inst);
        case Opcode::setcc: return require(inst.type == Type::i8, "setcc makes i8");
        case Opcode::pc:
        case Opcode::get_flags:
        case Opcode::call: return require(inst.type == Type::i64, "makes i64");
        case Opcode::lea: return require(inst.aux <= 3, "shift beyond 3");
        case Opcode::vec:
        case Opcode::gpr_to_vec: return require(!is_integer(inst.type), "makes a vector");
        case Opcode::get:
        case Opcode::put:
        case Opcode::load:
        case Opcode::store: return;
        default: return require(is_integer(inst.type), "an integer operation");
        }
    }

    void check_high(Inst const& inst) {
        Opcode const of = block_.insts[inst.a].op;
        bool const two_results =
            of == Opcode::umul2 || of == Opcode::smul2 || of == Opcode::udiv2 || of == Opcode::sdiv2;
        require(two_results && inst.a + 1u == at_ && !inst.sets_flags, "high not right after its operation");
    }

    // Faults must find the state as it was before the guest instruction. A store whose address a load for_write has
    // checked in the same instruction cannot fault.
    void check_order(Inst const& inst, OpInfo const& op) {
        if (inst.op == Opcode::insn_start) {
            ++starts_;
            changed_ = false;
            return checked_.clear();
        }
        if (inst.op == Opcode::load && inst.memory & mem_for_write) checked_.push_back(inst.a);
        bool const faults = op.may_fault && inst.op != Opcode::call && !was_checked(inst);
        require(!faults || !changed_, "may fault after the instruction has changed state");
        if (inst.op == Opcode::put || inst.sets_flags || inst.op == Opcode::put_flags) changed_ = true;
    }

    bool was_checked(Inst const& inst) const {
        if (inst.op != Opcode::store) return false;
        for (ValueId v : checked_)
            if (v == inst.a) return true;
        return false;
    }

    void check_terminal() {
        at_ = block_.insts.size();
        if (auto const* t = std::get_if<BranchNonZero>(&block_.terminal))
            require(is_value(t->value) && type_of(t->value) == t->type && is_integer(t->type), "bad branch value");
        if (auto const* t = std::get_if<Indirect>(&block_.terminal))
            require(is_value(t->target) && type_of(t->target) == Type::i64, "bad indirect target");
    }

    Block const& block_;
    std::size_t at_ = 0;
    unsigned starts_ = 0;
    bool changed_ = false;         // this guest instruction has changed registers or flags
    std::vector<ValueId> checked_; // addresses this guest instruction knows to be writable
    std::optional<std::string> problem_;
};

} // namespace

std::optional<std::string> verify(Block const& block) { return Verifier(block).run(); }

} // namespace vmm::tcg::ir
