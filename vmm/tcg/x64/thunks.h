// Thunks: pieces of code every block shares: the way in and out, slow paths, helpers.
#pragma once
#include "vmm/tcg/backend.h"
#include "vmm/tcg/x64/assembler.h"
#include "vmm/tcg/x64/plan.h"

#include <array>
#include <cstdint>
#include <unordered_map>
#include <utility>
#include <vector>

namespace vmm::tcg::x64 {

// What leaving translated code tells run(): returned in rax, rdx.
struct Leave {
    std::uint64_t kind; // a RunEnd
    std::uint64_t
        value; // next, exit_request: the LinkSite, or (indirect) null; fault: the instruction's in-page offset
};

// Jumps to the code for the guest address in r14 when it is in the first place of its pair in the context's address
// cache; else as the result tells, the place being in r15. The condition codes are in memory.
Fixup emit_address_lookup(Assembler& as);

// Calling convention inside generated code: rbp = context; pinned guest registers in their places; r11, r14, r15 are
// scratch. Slow paths keep every register but those they name, vector registers only in their *_x form.
class Thunks {
public:
    // The way from block to block without leaving translated code.
    struct Onward {
        // Whether the block at the program counter may be looked up in the context's address cache after a helper ended
        // one.
        bool (*go_on)(EngineContext&);
        // The executable code for a guest address, to be entered with it in r14; or null.
        void const* (*find)(EngineContext&, std::uint64_t address);
    };
    Thunks(Assembler& as, Pins const& pins, EngineContext& context, GuestInfo const& guest, Onward onward);

    // Emits all but helpers. Positions are in the writable view.
    void emit();

    // --- what many blocks contain
    // How a block is entered with its guest address in r14, `start` being its in-page offset.
    void copy_entry(std::int32_t start);
    // r15 := the place in the bank's read table for the page r15d has been made from by a rotation to the right by 8.
    void copy_slot() { as_.copy(slot_); }
    // The TLB entry r15 is compared with the page of the last byte, r14. r15 := addend; jumps on a miss.
    Fixup copy_check(bool write);
    // To the guest address in r14, see emit_address_lookup; looks for exit requests.
    void copy_address_jump();
    // The thunk calling helper `id`, made now if there is none: arguments r14, r15, r11, result r14. Helpers that may
    // fault leave ZF clear when a fault is pending.
    std::uint8_t const* helper(std::uint16_t id);
    void forget_helpers() { helpers_.clear(), made_.clear(); }
    // The helper thunks made since the last call, for listings.
    struct Made {
        std::uint16_t helper;
        std::uint8_t const* code; // in the writable view
        std::size_t bytes;
    };
    std::vector<Made> take_made_helpers() { return std::exchange(made_, {}); }

    using Enter = Leave (*)(EngineContext*, void const* code);
    std::uint8_t const* enter = nullptr;
    // r15 = value of Leave; pinned registers are stored.
    std::uint8_t const *leave_next = nullptr, *leave_dispatch = nullptr, *leave_fault = nullptr,
                       *leave_exit_request = nullptr;
    // The same as leave_next and leave_exit_request, the condition codes being as LinkSite::flags says and the host's
    // r15 at frame::registers; it is the LinkSite's address now.
    std::uint8_t const *leave_edge = nullptr, *leave_edge_exit = nullptr;
    // The guest address in r14 is not in the context's address cache (look_further: not at the pair's place r15). Goes
    // on there when it can be found, else leaves; *pc = r14 then.
    std::uint8_t const *look_further = nullptr, *leave_indirect = nullptr, *leave_indirect_exit = nullptr;
    // After a helper with the X trait: to the next block where that can be found at once, else as leave_dispatch.
    std::uint8_t const* dispatch = nullptr;
    // RFLAGS := the context's condition codes. Keeps all registers.
    std::uint8_t const* restore_flags = nullptr;
    // r14 = address, r15 = ExitWord; data in frame::buffer. On a fault the block is left. [1]: keeps vector registers.
    std::array<std::uint8_t const*, 2> load{}, store{}, load_for_write{};
    // The same by log2 of the size, looking into the TLB first.
    std::array<std::array<std::uint8_t const*, 6>, 2> look_up_load{}, look_up_store{};
    // r14 = address, r15d = size. r15 := host pointer or 0; ZF set: fault.
    std::array<std::uint8_t const*, 2> rmw_pointer{};
    // r14 = address, r15d = RmwRequest::pack; operands in frame::buffer, carry in frame::carry. r15 := old value, flags
    // in frame::image; ZF set: fault.
    std::array<std::uint8_t const*, 2> rmw{};
    // r14 = address: the guest's alignment fault.
    std::uint8_t const* alignment_fault = nullptr;
    // Division the inline code would not do, see vmm_x64_divide; r15d = request. ZF set: fault.
    std::uint8_t const* divide = nullptr;
    // Executes the VecCall at frame::vec_call.
    std::uint8_t const* vector = nullptr;
    // Host MXCSR flags into the guest's register, and the guest's register into the host's. Keep all registers.
    std::uint8_t const *merge_mxcsr = nullptr, *load_mxcsr = nullptr;

private:
    void emit_enter();
    void emit_leave();
    void emit_dispatch();
    void emit_restore_flags();
    void emit_snippets();
    template <class F> Snippet snippet(F make);
    void emit_leave_with_flags(std::uint8_t const* stored);
    enum class SlowKind { plain, value, access }; // value: r15 is a result; access: r15 is an ExitWord
    std::uint8_t const* emit_slow(void const* function, bool keep_vectors, SlowKind kind);
    std::uint8_t const* emit_look_up(unsigned log2_bytes, bool write, std::uint8_t const* slow);
    void emit_slow_paths();
    void emit_merge_mxcsr();
    void emit_load_mxcsr();
    void store_pins(bool all);
    void load_pins(bool all);
    std::uint8_t const* start();

    std::uint8_t const* leave_access = nullptr; // from an access with a fault: r15 = ExitWord, at a call's depth
    Snippet entry_, slot_, address_jump_;
    std::array<Snippet, 2> check_; // reads, writes
    // Where fields lie in them.
    std::array<std::size_t, 2> check_miss_{};
    std::size_t entry_start_ = 0, jump_exit_ = 0, jump_miss_ = 0;
    Assembler& as_;
    Pins const& pins_;
    EngineContext& context_;
    GuestInfo const& guest_;
    Onward onward_;
    std::unordered_map<std::uint16_t, std::uint8_t const*> helpers_;
    std::vector<Made> made_; // bounded by the number of helpers between two resets when nobody takes them
};

} // namespace vmm::tcg::x64
