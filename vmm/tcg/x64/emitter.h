// Emitter: turns one IR block into host code, in one pass forward.
#pragma once
#include "vmm/tcg/x64/assembler.h"
#include "vmm/tcg/x64/block.h"
#include "vmm/tcg/x64/cold_code.h"
#include "vmm/tcg/x64/flag_state.h"
#include "vmm/tcg/x64/frame.h"
#include "vmm/tcg/x64/groups.h"
#include "vmm/tcg/x64/plan.h"
#include "vmm/tcg/x64/thunks.h"

#include <array>
#include <cstdint>
#include <deque>
#include <optional>
#include <vector>

namespace vmm::tcg::x64 {

// Where a value is.
enum class Place : std::uint8_t {
    nowhere,
    immediate,
    pinned,  // the low bits of a pinned register
    high,    // bits 8-15 of a pinned register
    slot,    // the context, at `disp`
    scratch, // a scratch register
    frame,   // the host stack, at `disp`
    address, // a folded lea
    vector,  // see VectorValue
};
struct Value {
    Place place = Place::nowhere;
    std::int8_t reg = -1;
    std::int32_t disp = 0;
    std::int32_t home = -1; // in the context too, there, for as long as it is used
    std::int64_t imm = 0;
};
// A vector value may be in a register, in memory, or both.
struct VectorValue {
    std::int8_t xmm = -1;
    enum : std::uint8_t { no_home, in_slot, in_frame } home = no_home;
    std::int32_t disp = 0;
};

struct EmitOptions {
    bool atomic = true; // read-modify-writes with LOCK keep other CPUs out
    bool count_instructions = false;
    bool profile = false;
    std::uint32_t features = ~0u; // bit per ir::VecFeature: the host has these instructions
};

// Where the code of a guest instruction begins, or of what follows the last one.
inline constexpr std::int32_t mark_end = -0x7fffffff, mark_slow_paths = mark_end + 1;
struct Mark {
    std::uint8_t const* code; // in the writable view
    std::int32_t offset;      // in-page offset of the instruction, mark_end or mark_slow_paths
};

// Where everything is at one point of a block.
struct Allocation {
    std::vector<Value> values;
    std::vector<VectorValue> vectors;
    std::array<ir::ValueId, host::count> owner;
    std::array<ir::ValueId, 16> xmm_owner;
    std::vector<std::int32_t> free_frames, free_vector_frames;
    unsigned next_frame = 0, next_vector_frame = 0;
    std::int32_t guest_offset = 0;
    FlagState flags;
    std::vector<std::uint8_t> done; // puts that an earlier instruction did
};

// What emitters work in, kept from block to block so that nothing is allocated for one.
struct EmitBuffers {
    Plan plan;
    GroupFinder groups;
    Allocation now;
    std::deque<Allocation> points; // the first `used_points` are of the block at hand
    std::size_t used_points = 0;
    std::vector<ir::ValueId> live_vectors;
    ColdCode cold;
    std::vector<Mark> marks; // of the block emitted last
};

class Emitter {
public:
    Emitter(Assembler& as, Thunks& thunks, Pins const& pins, GuestInfo const& guest, EngineContext& context,
            EmitOptions options, ir::Block const& block, X64Block& out, EmitBuffers& buffers);
    void run();

private:
    using Inst = ir::Inst;
    using Type = ir::Type;
    using ValueId = ir::ValueId;
    using Opcode = ir::Opcode;
    using Cond = ir::Cond;

    // A guest address as base + index << shift + disp; base is always there.
    struct Address {
        int base = -1, index = -1, shift = 0;
        std::int32_t disp = 0;
    };
    // A host address within reach: base + index + disp.
    struct HostAddress {
        int base = -1, index = -1;
        std::int32_t disp = 0;
    };

    // --- emitter.cpp
    void emit(std::uint32_t i);
    void emit_get(std::uint32_t i);
    void emit_put(std::uint32_t i);
    void put_pinned(std::uint32_t i, unsigned pin);
    void put_slot(std::uint32_t i);
    void emit_call(std::uint32_t i);

    // --- values.cpp: registers and operands
    Inst const& inst(std::uint32_t i) const { return block_.insts[i]; }
    ValueId root(ValueId v) const { return plan_.values[v].root; }
    Value& val(ValueId v) { return values_[root(v)]; }
    bool dies(ValueId v) const { return plan_.values[root(v)].last_use <= cur_; }
    static bool is_scratch(int r) { return r == host::r11 || r == host::r14 || r == host::r15; }
    void lock(int r) { locked_ |= 1u << r; }
    bool locked(int r) const { return locked_ >> r & 1; }
    ValueId& owner(int r) { return owner_[unsigned(r)]; }
    // A scratch register for this instruction; its former value is moved away.
    int take_scratch();
    void take(int r);  // that very scratch register
    void spill(int r); // its value goes to memory
    void evict(int r); // its value goes elsewhere, the register is free
    std::int32_t take_frame();
    void forget_register(int r); // r is about to change: the flag recipe may need it
    void lose_addend();
    void forget_slot(std::int64_t offset, unsigned size);
    void drop_recipe();
    void release_operands(std::uint32_t i);
    // The value's low bits in some register; loads it into a scratch register when it is elsewhere.
    int reg_of(ValueId v);
    bool in_register(ValueId v) { return val(v).place == Place::pinned || val(v).place == Place::scratch; }
    bool is_immediate(ValueId v, Type t, std::int64_t& imm);
    bool in_memory(ValueId v) { return val(v).place == Place::slot || val(v).place == Place::frame; }
    Xbyak::Address memory_of(ValueId v, Type t);
    // Moves the value to register r, which is not an operand's. Flags stay.
    void move_to(int r, ValueId v, Type t);
    // Where instruction i's result is computed: its pinned register, or a scratch register. `busy`: registers that are
    // read after the result is written.
    int result_register(std::uint32_t i, std::initializer_list<int> busy = {});
    void finish_result(std::uint32_t i, int r);
    int pinned_target(std::uint32_t i) const;
    Xbyak::Address context_at(Type t, std::int64_t disp) { return as_.sized(t, Xbyak::util::rbp + int(disp)); }
    Xbyak::Address frame_at(Type t, std::int64_t disp) { return as_.sized(t, Xbyak::util::rsp + int(disp)); }
    Xbyak::Address host_at(Type t, HostAddress const& a);
    static Type at_least_32(Type t) { return t == Type::i64 ? t : Type::i32; }

    // --- flags.cpp
    bool flags_wanted(std::uint32_t i) const { return inst(i).sets_flags && plan_.values[i].flags_live_after; }
    void clobber_flags(); // RFLAGS are about to be lost
    void need_rflags();   // ... must hold the condition codes
    void need_memory();   // ... must be in the context
    void define_flags(std::uint32_t i, Recipe recipe = {});
    void store_raw();
    int spare_scratch();
    template <class F> void with_rax(F f);
    void save_rflags(); // to the frame
    void restore_rflags() { load_rflags(frame_at(Type::i64, frame::flags)); }
    void load_rflags(Xbyak::Address const& from);
    void replay(Recipe const& r);
    void store_for_exit(FlagState const& f); // in cold code: RFLAGS may be lost
    static Recipe recipe(Recipe::Kind kind, Type t, int x, int y = -1, std::int64_t imm = 0);

    // --- integer.cpp
    bool emit_integer(std::uint32_t i);
    void emit_binary(std::uint32_t i);
    void emit_compare(std::uint32_t i);
    void alu(Opcode op, Xbyak::Operand const& d, Xbyak::Operand const& s);
    void alu(Opcode op, Xbyak::Operand const& d, std::int64_t imm);
    void emit_andn(std::uint32_t i);
    void emit_unary(std::uint32_t i);
    void emit_shift(std::uint32_t i);
    void shift(Opcode op, Xbyak::Reg const& d, int count);
    void emit_double_shift(std::uint32_t i);
    void emit_variable(std::uint32_t i, int dst, int other, int count);
    void finish_variable(std::uint32_t i, int count_reg, FlagState before);
    void emit_mul(std::uint32_t i);
    void emit_wide_multiply(std::uint32_t i);
    void emit_divide(std::uint32_t i);
    void take_pair(std::uint32_t i, int keep_rax, int keep_rdx);
    bool pair_puts(std::uint32_t i, std::uint32_t& high);
    void emit_high(std::uint32_t i);
    void emit_scan(std::uint32_t i);
    void emit_count(std::uint32_t i);
    void emit_bit_test(std::uint32_t i);
    void emit_fields(std::uint32_t i);
    void emit_extend(std::uint32_t i);
    void emit_lea(std::uint32_t i);
    void emit_select_nz(std::uint32_t i);
    void emit_select_cc(std::uint32_t i);
    void emit_setcc(std::uint32_t i);
    void emit_flag_moves(std::uint32_t i);

    // --- memory.cpp
    bool emit_memory(std::uint32_t i);
    Address address_of(ValueId v);
    Address operands_of(ValueId v);
    Address in_r11(Address const& a);
    void reserve_temps();
    void load_address(int r, Address const& a, std::int32_t more = 0);
    HostAddress translate(std::uint32_t i, Address const& a, bool write, bool held, Fixup& miss);
    void check_alignment(std::uint32_t i, Address const& a);
    std::uint64_t access_word(std::uint32_t i, bool flags_saved) const;
    void call_access(std::uint8_t const* thunk, Address const& a, std::uint64_t word);
    void emit_load(std::uint32_t i);
    void emit_store(std::uint32_t i);
    void emit_rmw(std::uint32_t i);
    void rmw_native(std::uint32_t i, int operand, std::int64_t imm);
    void fault_here(Fixup f);
    // In cold code: the block ends here with a fault.
    void leave_with_fault(FlagState const& f, std::int32_t offset);

    Fixup check_range(Address const& a, std::int32_t low, std::int32_t high, bool write);
    bool in_group(std::uint32_t i) const { return group_ && groups_.member[i]; }
    // RFLAGS stay where they are across a load or store in a group, and are lost by any other. True: in this (second)
    // copy of a group they are lost too, but have been saved; to be restored once the result is where it belongs.
    bool begin_access(std::uint32_t i);

    // --- grouped.cpp
    Allocation const& remember_places();
    bool same_places(Allocation const& a) const;
    void emit_group(AccessGroup const& g);

    // --- vector.cpp
    bool emit_vector(std::uint32_t i);
    int take_xmm();
    void drop_xmm(int x);
    int xmm_of(ValueId v);
    Assembler::Rm vector_rm(ValueId v, unsigned bytes_read);
    Assembler::Rm home_rm(VectorValue const& v);
    void define_vector(std::uint32_t i, int x);
    void release_vectors(std::uint32_t i);
    void spill_vectors(bool slots_change);
    void save_slot_vectors(std::int64_t offset, unsigned size, ValueId except);
    void emit_vector_get(std::uint32_t i);
    void emit_vector_put(std::uint32_t i);
    void emit_vec(std::uint32_t i);
    void emit_vec_to_gpr(std::uint32_t i);
    void emit_gpr_to_vec(std::uint32_t i);
    void emit_vec_legacy(std::uint32_t i, ir::VecInfo const& info);
    void emit_vec_call(std::uint32_t i);
    void vector_address(int r, ValueId v);
    bool live_vectors() const;
    bool touches_mxcsr(Inst const& n) const;

    // --- control.cpp
    void emit_terminal();
    void emit_edge(LinkSite& site, std::int32_t target, std::optional<Cond> when);
    void leave_at(LinkSite const& site, bool r15_wanted, std::uint8_t const* way);
    void emit_far_edge(std::int32_t target, std::optional<Cond> when);
    void emit_indirect(ir::Indirect const& t);
    void emit_address_jump();

    Assembler& as_;
    Thunks& thunks_;
    Pins const& pins_;
    GuestInfo const& guest_;
    EngineContext& context_;
    EmitOptions options_;
    ir::Block const& block_;
    X64Block& out_;
    EmitBuffers& buffers_;
    std::vector<Mark>& marks_;
    Plan const& plan_;
    AccessGroups const& groups_;
    AccessGroup const* group_ = nullptr; // whose check is behind us
    bool addend_held_ = false;           // r15 holds its addend
    bool addend_saved_ = false;          // frame::group does
    bool second_copy_ = false;           // loads and stores are calls
    // Places: buffers_.now.
    std::vector<Value>& values_;
    std::vector<VectorValue>& vectors_;
    std::array<ValueId, host::count>& owner_;
    std::array<ValueId, 16>& xmm_owner_;
    std::uint32_t xmm_locked_ = 0;
    std::uint32_t locked_ = 0;
    std::vector<std::int32_t>&free_frames_, &free_vector_frames_;
    unsigned &next_frame_, &next_vector_frame_;
    std::uint32_t cur_ = 0;
    std::int32_t& guest_offset_;
    FlagState& flags_;
    std::vector<std::uint8_t>& done_;
    ColdCode& cold_;
    std::vector<ValueId>& live_vector_list_;
};

} // namespace vmm::tcg::x64
