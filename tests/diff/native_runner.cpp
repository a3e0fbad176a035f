#include "tests/diff/native_runner.h"

#include <fmt/core.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <ucontext.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace vmm::diff {

struct NativeRunner::Shared {
    struct Slot {
        Registers start;
        bool long_mode;
        std::array<std::uint8_t, data_size> data;
        std::array<std::uint8_t, stack_size> stack;
        std::array<std::uint8_t, code_size> code;
        Outcome out;
    };
    std::array<Slot, batch> slots;
    std::atomic<unsigned> done; // slots the child has gone through
};

namespace {

// The child's own state; it does nothing but run sequences, one at a time, so its signal handler may use these.
Registers const* child_start;
Outcome* child_out;
std::uint16_t child_code_selector;
bool child_in_sequence;
ucontext_t child_home;
alignas(64) std::uint8_t child_home_fp[4096];

constexpr std::uint16_t user_code32 = 0x23, user_code64 = 0x33, user_data = 0x2b; // Linux's
constexpr int patience_ms = 10'000; // a sequence that takes longer does not end

constexpr int gpr_to_greg[] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP, REG_RSI, REG_RDI,
                               REG_R8,  REG_R9,  REG_R10, REG_R11, REG_R12, REG_R13, REG_R14, REG_R15};

// The signal frame's XSAVE area: 512 bytes of FXSAVE form, a header, then the upper halves at 576.
std::uint8_t* fp_area(ucontext_t* uc) { return reinterpret_cast<std::uint8_t*>(uc->uc_mcontext.fpregs); }
std::size_t fp_size(std::uint8_t const* area) {
    std::uint32_t magic, size;
    std::memcpy(&magic, area + 464, 4);
    std::memcpy(&size, area + 468, 4);
    return magic == 0x46505853 && size <= sizeof child_home_fp ? size : 512;
}
constexpr std::size_t upper_halves = 576;

void enter(ucontext_t* uc) {
    Registers const& r = *child_start;
    child_home = *uc;
    std::uint8_t* fp = fp_area(uc);
    std::memcpy(child_home_fp, fp, fp_size(fp));
    auto selectors = std::uint64_t(uc->uc_mcontext.gregs[REG_CSGSFS]);
    selectors = (selectors & ~std::uint64_t(0xffff)) | child_code_selector;
    uc->uc_mcontext.gregs[REG_CSGSFS] = std::int64_t(selectors);
    for (unsigned i = 0; i < 16; ++i) uc->uc_mcontext.gregs[gpr_to_greg[i]] = std::int64_t(r.gpr[i]);
    uc->uc_mcontext.gregs[REG_RIP] = std::int64_t(r.rip);
    uc->uc_mcontext.gregs[REG_EFL] = std::int64_t(r.rflags);
    std::memcpy(fp, &r.fcw, 2);
    std::memcpy(fp + 2, &r.fsw, 2);
    fp[4] = r.tags;
    std::memset(fp + 6, 0, 18);
    std::memcpy(fp + 24, &r.mxcsr, 4);
    for (unsigned i = 0; i < 8; ++i) std::memcpy(fp + 32 + 16 * i, r.st[i].data(), 10);
    for (unsigned i = 0; i < 16; ++i) std::memcpy(fp + 160 + 16 * i, r.ymm[i].data(), 16);
    if (fp_size(fp) > upper_halves) {
        std::uint64_t components;
        std::memcpy(&components, fp + 512, 8);
        components |= 7;
        std::memcpy(fp + 512, &components, 8);
        for (unsigned i = 0; i < 16; ++i) std::memcpy(fp + upper_halves + 16 * i, r.ymm[i].data() + 2, 16);
    }
}

void leave(ucontext_t* uc) {
    Outcome& o = *child_out;
    for (unsigned i = 0; i < 16; ++i) o.registers.gpr[i] = std::uint64_t(uc->uc_mcontext.gregs[gpr_to_greg[i]]);
    o.registers.rip = std::uint64_t(uc->uc_mcontext.gregs[REG_RIP]);
    o.registers.rflags = std::uint64_t(uc->uc_mcontext.gregs[REG_EFL]);
    o.vector = int(uc->uc_mcontext.gregs[REG_TRAPNO]);
    o.error = std::uint64_t(uc->uc_mcontext.gregs[REG_ERR]);
    o.address = std::uint64_t(uc->uc_mcontext.gregs[REG_CR2]);
    std::uint8_t* fp = fp_area(uc);
    std::memcpy(&o.registers.fcw, fp, 2);
    std::memcpy(&o.registers.fsw, fp + 2, 2);
    o.registers.tags = fp[4];
    std::memcpy(&o.registers.fop, fp + 6, 2);
    std::memcpy(&o.registers.fip, fp + 8, 8);
    std::memcpy(&o.registers.fdp, fp + 16, 8);
    std::memcpy(&o.registers.mxcsr, fp + 24, 4);
    for (unsigned i = 0; i < 8; ++i) std::memcpy(o.registers.st[i].data(), fp + 32 + 16 * i, 10);
    std::uint64_t components = 7;
    if (fp_size(fp) > upper_halves) std::memcpy(&components, fp + 512, 8);
    if (!(components & 1)) {
        Registers const initial;
        o.registers.fcw = initial.fcw, o.registers.fsw = initial.fsw, o.registers.tags = initial.tags;
        o.registers.fop = initial.fop, o.registers.fip = initial.fip, o.registers.fdp = initial.fdp;
        o.registers.st = initial.st;
    }
    for (unsigned i = 0; i < 16; ++i) {
        // A component in its initial state is not stored.
        if (components & 2)
            std::memcpy(o.registers.ymm[i].data(), fp + 160 + 16 * i, 16);
        else
            o.registers.ymm[i][0] = o.registers.ymm[i][1] = 0;
        if (components & 4 && fp_size(fp) > upper_halves)
            std::memcpy(o.registers.ymm[i].data() + 2, fp + upper_halves + 16 * i, 16);
        else
            o.registers.ymm[i][2] = o.registers.ymm[i][3] = 0;
    }
    std::size_t size = fp_size(fp);
    auto* fpregs = uc->uc_mcontext.fpregs;
    uc->uc_mcontext = child_home.uc_mcontext;
    uc->uc_mcontext.fpregs = fpregs;
    std::memcpy(fp, child_home_fp, size);
}

void on_signal(int, siginfo_t*, void* raw) {
    // AC, NT and ID are what the sequence left; the first is not for this code, and sigreturn keeps the others.
    asm volatile("pushfq\n\tandl %0, (%%rsp)\n\tpopfq" ::"i"(~0x244000) : "memory", "cc");
    auto* uc = static_cast<ucontext_t*>(raw);
    if (!child_in_sequence) {
        child_in_sequence = true;
        enter(uc);
    } else {
        child_in_sequence = false;
        leave(uc);
    }
}

void map_at(std::uint64_t base, std::size_t size, int protection) {
    void* want = reinterpret_cast<void*>(base);
    if (mmap(want, size, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != want) _exit(3);
}

} // namespace

NativeRunner::NativeRunner() {
    void* shared = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED) std::abort();
    shared_ = new (shared) Shared;
}

NativeRunner::~NativeRunner() {
    stop_child();
    munmap(shared_, sizeof(Shared));
}

std::string NativeRunner::stop_child() {
    if (child_ < 0) return {};
    close(to_child_);
    close(from_child_);
    int status = 0;
    pid_t const ended = waitpid(child_, &status, WNOHANG);
    if (ended == 0) {
        kill(child_, SIGKILL);
        waitpid(child_, nullptr, 0);
    }
    child_ = -1;
    if (ended == 0) return "no end within the time allowed";
    return WIFSIGNALED(status) ? fmt::format("signal {}", WTERMSIG(status))
                               : fmt::format("status {}", WEXITSTATUS(status));
}

void NativeRunner::start_child() {
    int down[2], up[2];
    if (pipe(down) < 0 || pipe(up) < 0) std::abort();
    child_ = fork();
    if (child_ != 0) {
        close(down[0]), close(up[1]);
        to_child_ = down[1], from_child_ = up[0];
        return;
    }
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    close(down[1]), close(up[0]);
    map_at(code_base, code_size, PROT_READ | PROT_WRITE | PROT_EXEC);
    map_at(data_base, data_size, PROT_READ | PROT_WRITE);
    map_at(stack_base, stack_size, PROT_READ | PROT_WRITE);
    static std::array<std::uint8_t, 65536> handler_stack;
    stack_t alternate{.ss_sp = handler_stack.data(), .ss_flags = 0, .ss_size = handler_stack.size()};
    sigaltstack(&alternate, nullptr);
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
    for (int s : {SIGSEGV, SIGILL, SIGFPE, SIGTRAP, SIGBUS}) sigaction(s, &action, nullptr);
    // Commands are the first slot to run and the one behind the last.
    unsigned char command[2];
    while (read(down[0], command, 2) == 2) {
        for (unsigned slot = command[0]; slot < command[1]; ++slot) serve(slot);
        if (write(up[1], command, 1) != 1) break;
    }
    _exit(0);
}

// In the child.
void NativeRunner::serve(unsigned number) {
    Shared::Slot& slot = shared_->slots[number];
    auto* data = reinterpret_cast<std::uint8_t*>(data_base);
    child_start = &slot.start;
    child_out = &slot.out;
    child_code_selector = slot.long_mode ? user_code64 : user_code32;
    // 32-bit sequences need usable data segments and may load others; the kernel leaves them alone.
    asm volatile("movw %w0, %%ds\n\tmovw %w0, %%es" ::"r"(user_data));
    mprotect(data, data_size, PROT_READ | PROT_WRITE);
    std::memcpy(reinterpret_cast<void*>(code_base), slot.code.data(), code_size);
    std::memcpy(data, slot.data.data(), data_size);
    std::memcpy(reinterpret_cast<void*>(stack_base), slot.stack.data(), stack_size);
    mprotect(data + data_writable, data_size - data_writable, PROT_READ);
    asm volatile("int3" ::: "memory", "cc");
    std::memcpy(slot.out.data.data(), data, data_size);
    std::memcpy(slot.out.stack.data(), reinterpret_cast<void*>(stack_base), stack_size);
    shared_->done.store(number + 1, std::memory_order_release);
}

bool NativeRunner::run(Sequence const& sequence, Outcome& out) {
    Result result;
    run_all({&sequence, 1}, {&result, 1});
    out = result.outcome;
    return result.ran;
}

void NativeRunner::run_all(std::span<Sequence const> sequences, std::span<Result> results) {
    for (unsigned i = 0; i < sequences.size(); ++i) {
        Sequence const& s = sequences[i];
        Shared::Slot& slot = shared_->slots[i];
        slot.start = s.start;
        slot.long_mode = s.long_mode;
        slot.data = s.data;
        slot.stack = s.stack;
        slot.code.fill(0xcc);
        std::memcpy(slot.code.data() + s.code_offset, s.code.data(), s.code.size());
        results[i].ran = true;
    }
    unsigned const end = unsigned(sequences.size());
    for (unsigned at = 0; at < end;) {
        if (child_ < 0) start_child();
        shared_->done.store(at, std::memory_order_release);
        unsigned char command[2] = {std::uint8_t(at), std::uint8_t(end)};
        pollfd answer{.fd = from_child_, .events = POLLIN, .revents = 0};
        bool alive = write(to_child_, command, 2) == 2;
        // Patience is for each of them.
        for (unsigned before = at; alive && poll(&answer, 1, patience_ms) != 1;) {
            unsigned const now = shared_->done.load(std::memory_order_acquire);
            alive = now != before;
            before = now;
        }
        if (alive && read(from_child_, command, 1) == 1) break;
        at = shared_->done.load(std::memory_order_acquire);
        why_ = stop_child();
        if (at < end) results[at++].ran = false;
    }
    for (unsigned i = 0; i < end; ++i)
        if (results[i].ran) results[i].outcome = shared_->slots[i].out;
}

} // namespace vmm::diff
