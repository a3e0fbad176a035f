#include "vmm/tcg/ir/text.h"

#include "vmm/tcg/ir/op_info.h"

#include <fmt/core.h>

#include <array>
#include <charconv>
#include <utility>

namespace vmm::tcg::ir {
namespace {

constexpr std::array<std::string_view, 6> type_names = {"i8", "i16", "i32", "i64", "v128", "v256"};
constexpr std::array<std::string_view, 16> cond_names = {"o", "no", "b", "ae", "e", "ne", "be", "a",
                                                         "s", "ns", "p", "np", "l", "ge", "le", "g"};
constexpr std::array<std::string_view, 3> kind_names = {"jump", "call", "ret"};
constexpr std::array<std::pair<std::string_view, MemAttr>, 4> memory_names = {
    {{"aligned", mem_aligned}, {"for_write", mem_for_write}, {"lock", mem_lock}, {"non_temporal", mem_non_temporal}}};

template <std::size_t n>
std::optional<unsigned> index_of(std::array<std::string_view, n> const& names, std::string_view name) {
    for (unsigned i = 0; i < n; ++i)
        if (names[i] == name) return i;
    return std::nullopt;
}

bool names_slot(Opcode op) { return op == Opcode::get || op == Opcode::put; }

std::string immediate_text(Inst const& inst, Names const* names) {
    if (names && names_slot(inst.op))
        if (auto name = names->slot_name(inst.imm)) return fmt::format(" slot={}", *name);
    if (names && inst.op == Opcode::call)
        if (auto name = names->helper_name(inst.imm)) return fmt::format(" helper={}", *name);
    return inst.imm ? fmt::format(" imm={}", inst.imm) : std::string();
}

std::string arguments_text(Inst const& inst) {
    std::array<ValueId, 3> const args = {inst.a, inst.b, inst.c};
    unsigned count = 3;
    while (count && args[count - 1] == none) --count;
    std::string text;
    for (unsigned i = 0; i < count; ++i) text += args[i] == none ? " _" : fmt::format(" %{}", args[i]);
    return text;
}

std::string inst_text(Inst const& inst, std::size_t number, Names const* names) {
    std::string line = "  ";
    if (info(inst.op).has_result) line += fmt::format("%{} = ", number);
    line += fmt::format("{}.{}", info(inst.op).name, type_names[unsigned(inst.type)]);
    if (inst.sets_flags) line += " flags";
    for (auto [name, bit] : memory_names)
        if (inst.memory & bit) line += fmt::format(" {}", name);
    line += arguments_text(inst);
    if (inst.op == Opcode::setcc || inst.op == Opcode::select_cc)
        line += fmt::format(" cc={}", cond_names[unsigned(inst.cc)]);
    if (inst.base_hint != no_base_hint) line += fmt::format(" base={}", inst.base_hint);
    if (inst.aux) line += fmt::format(" aux={}", inst.aux);
    if (inst.vec_op) line += fmt::format(" vec_op={}", inst.vec_op);
    return line + immediate_text(inst, names) + "\n";
}

std::string terminal_text(Terminal const& terminal) {
    struct Visitor {
        std::string operator()(Dispatch const&) const { return "dispatch"; }
        std::string operator()(Jump const& t) const {
            std::string call = t.is_call ? fmt::format(" call return_to={}", t.return_to) : "";
            return fmt::format("jump target={}{}", t.target, call);
        }
        std::string operator()(Branch const& t) const {
            return fmt::format("branch cc={} taken={} not_taken={}", cond_names[unsigned(t.cc)], t.taken, t.not_taken);
        }
        std::string operator()(BranchNonZero const& t) const {
            return fmt::format("branch_non_zero %{} type={} taken={} not_taken={}", t.value,
                               type_names[unsigned(t.type)], t.taken, t.not_taken);
        }
        std::string operator()(Indirect const& t) const {
            return fmt::format("indirect %{} kind={} return_to={}", t.target, kind_names[unsigned(t.kind)],
                               t.return_to);
        }
    };
    return fmt::format("  end {}\n", std::visit(Visitor{}, terminal));
}

// --- parsing

// A line's words, split into plain words, values ("%3") and key=value.
class Line {
public:
    explicit Line(std::string_view text) : rest_(text.substr(0, text.find(';'))) {}

    // The next word, empty at the end.
    std::string_view next() {
        std::size_t const begin = rest_.find_first_not_of(" \t\r");
        if (begin == std::string_view::npos) return rest_ = {};
        std::size_t const end = std::min(rest_.find_first_of(" \t\r", begin), rest_.size());
        std::string_view const word = rest_.substr(begin, end - begin);
        rest_.remove_prefix(end);
        return word;
    }

private:
    std::string_view rest_;
};

std::optional<std::int64_t> number(std::string_view s) {
    std::int64_t v = 0;
    auto [end, error] = std::from_chars(s.data(), s.data() + s.size(), v);
    if (error != std::errc() || end != s.data() + s.size()) return std::nullopt;
    return v;
}

std::optional<ValueId> value(std::string_view s) {
    if (s == "_") return none;
    if (!s.starts_with('%')) return std::nullopt;
    auto n = number(s.substr(1));
    if (!n || *n < 0 || *n >= none) return std::nullopt;
    return ValueId(*n);
}

std::optional<Opcode> opcode(std::string_view name) {
    for (unsigned i = 0; i < opcode_count; ++i)
        if (info(Opcode(i)).name == name) return Opcode(i);
    return std::nullopt;
}

// Fields given as words; each setter returns false when the word is not its own or malformed.
bool set_key(Inst& inst, std::string_view key, std::string_view text, Names const* names) {
    if (key == "cc") {
        auto cc = index_of(cond_names, text);
        inst.cc = Cond(cc.value_or(0));
        return cc.has_value();
    }
    std::optional<std::int64_t> v;
    if (key == "slot")
        v = names ? names->slot_offset(text) : std::nullopt;
    else if (key == "helper")
        v = names ? names->helper_id(text) : std::nullopt;
    else
        v = number(text);
    if (!v) return false;
    if (key == "imm" || key == "slot" || key == "helper") return inst.imm = *v, true;
    if (key == "base") return inst.base_hint = std::uint8_t(*v), true;
    if (key == "aux") return inst.aux = std::uint8_t(*v), true;
    if (key == "vec_op") return inst.vec_op = std::uint16_t(*v), true;
    return false;
}

bool set_word(Inst& inst, std::string_view word) {
    if (word == "flags") return inst.sets_flags = true;
    for (auto [name, bit] : memory_names)
        if (word == name) return inst.memory |= bit, true;
    return false;
}

bool parse_inst(Line line, std::string_view word, std::size_t number_here, Names const* names, Inst& inst) {
    if (word.starts_with('%')) {
        if (value(word) != ValueId(number_here) || line.next() != "=") return false;
        word = line.next();
    }
    std::size_t const dot = word.find('.');
    if (dot == std::string_view::npos) return false;
    auto const op = opcode(word.substr(0, dot));
    auto const type = index_of(type_names, word.substr(dot + 1));
    if (!op || !type) return false;
    inst.op = *op;
    inst.type = Type(*type);
    std::array<ValueId*, 3> const args = {&inst.a, &inst.b, &inst.c};
    unsigned count = 0;
    for (word = line.next(); !word.empty(); word = line.next()) {
        if (std::size_t const equals = word.find('='); equals != std::string_view::npos) {
            if (!set_key(inst, word.substr(0, equals), word.substr(equals + 1), names)) return false;
        } else if (auto v = value(word)) {
            if (count == args.size()) return false;
            *args[count++] = *v;
        } else if (!set_word(inst, word)) {
            return false;
        }
    }
    return true;
}

// The key=value words of a terminal or block line.
struct Settings {
    std::optional<ValueId> v;
    bool call = false, bad = false;
    std::int32_t target = 0, return_to = 0, taken = 0, not_taken = 0, start = 0, insns = 0, bytes = 0, crosses = 0,
                 alone = 0;
    unsigned cc = 0, type = 3, kind = 0;

    explicit Settings(Line line) {
        for (std::string_view word = line.next(); !word.empty(); word = line.next()) take(word);
    }

private:
    void take(std::string_view word) {
        if (word == "call") return void(call = true);
        if (word.starts_with('%')) return void(bad |= !(v = value(word)));
        std::size_t const equals = word.find('=');
        if (equals == std::string_view::npos) return void(bad = true);
        std::string_view const key = word.substr(0, equals), text = word.substr(equals + 1);
        if (key == "cc") return choose(cc, index_of(cond_names, text));
        if (key == "type") return choose(type, index_of(type_names, text));
        if (key == "kind") return choose(kind, index_of(kind_names, text));
        auto const n = number(text);
        for (auto [name, field] :
             std::initializer_list<std::pair<std::string_view, std::int32_t*>>{{"target", &target},
                                                                               {"return_to", &return_to},
                                                                               {"taken", &taken},
                                                                               {"not_taken", &not_taken},
                                                                               {"start", &start},
                                                                               {"insns", &insns},
                                                                               {"bytes", &bytes},
                                                                               {"crosses", &crosses},
                                                                               {"alone", &alone}})
            if (name == key && n) return void(*field = std::int32_t(*n));
        bad = true;
    }
    void choose(unsigned& field, std::optional<unsigned> choice) {
        bad |= !choice;
        field = choice.value_or(0);
    }
};

bool parse_terminal(Line line, Terminal& terminal) {
    std::string_view const kind = line.next();
    Settings const s(line);
    if (s.bad) return false;
    if (kind == "dispatch")
        terminal = Dispatch{};
    else if (kind == "jump")
        terminal = Jump{.target = s.target, .is_call = s.call, .return_to = s.return_to};
    else if (kind == "branch")
        terminal = Branch{.cc = Cond(s.cc), .taken = s.taken, .not_taken = s.not_taken};
    else if (kind == "branch_non_zero" && s.v)
        terminal = BranchNonZero{.value = *s.v, .type = Type(s.type), .taken = s.taken, .not_taken = s.not_taken};
    else if (kind == "indirect" && s.v)
        terminal = Indirect{.target = *s.v, .kind = IndirectKind(s.kind), .return_to = s.return_to};
    else
        return false;
    return true;
}

bool parse_line(std::string_view text, Names const* names, Block& block) {
    Line line(text);
    std::string_view const word = line.next();
    if (word.empty()) return true;
    if (word == "end") return parse_terminal(line, block.terminal);
    if (word == "block") {
        Settings const s(line);
        block.start = s.start;
        block.guest_insns = std::uint16_t(s.insns);
        block.guest_bytes = std::uint16_t(s.bytes);
        block.crosses_page = s.crosses;
        block.alone = s.alone;
        return !s.bad;
    }
    Inst inst;
    if (block.insts.size() >= none || !parse_inst(line, word, block.insts.size(), names, inst)) return false;
    block.insts.push_back(inst);
    return true;
}

} // namespace

std::string to_text(Block const& block, Names const* names) {
    std::string text =
        fmt::format("block start={} insns={} bytes={}{}{}\n", block.start, block.guest_insns, block.guest_bytes,
                    block.crosses_page ? " crosses=1" : "", block.alone ? " alone=1" : "");
    for (std::size_t i = 0; i < block.insts.size(); ++i) text += inst_text(block.insts[i], i, names);
    return text + terminal_text(block.terminal);
}

Result<Block> parse(std::string_view text, Names const* names) {
    Block block;
    for (unsigned line_number = 1; !text.empty(); ++line_number) {
        std::size_t const end = std::min(text.find('\n'), text.size());
        std::string_view const line = text.substr(0, end);
        if (!parse_line(line, names, block)) return error("IR line {}: cannot parse '{}'", line_number, line);
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return block;
}

} // namespace vmm::tcg::ir
