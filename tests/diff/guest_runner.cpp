#include "tests/diff/guest_runner.h"

#include <cstring>

namespace vmm::diff {

using namespace vmm::x86;

namespace {

// Physical layout: tables first, then the three areas.
constexpr std::uint64_t pml4 = 0x1000, pdpt = 0x2000, pd = 0x3000, pt_code = 0x4000, pt_data = 0x5000,
                        pt_stack = 0x6000, pt_kernel = 0x7000, pd_kernel = 0xe000, pdpt_kernel = 0xf000, idt = 0x8000,
                        gdt = 0x9000, tss = 0xa000, stubs = 0xb000, kernel_stack = 0xd000, code_phys = 0x10000,
                        data_phys = 0x20000, stack_phys = 0x30000, ram_size = 0x40000;
// Where the supervisor sees physical memory: far from what test programs compute by chance.
constexpr std::uint64_t kernel_base = 0xffff900000000000;
constexpr unsigned stub_size = 16;
constexpr std::uint16_t kernel_code = 0x10, user_data = 0x2b, user_code32 = 0x23, user_code64 = 0x33,
                        tss_selector = 0x40;

bool has_error_code(int vector) { return vector == 8 || (vector >= 10 && vector <= 14) || vector == 17; }

} // namespace

GuestRunner::GuestRunner(tcg::BackendFactory backend) {
    ram_ = RamBlock::create("ram", ram_size).value();
    memory_.map({.name = "ram", .range = AddressRange::of(0, ram_size), .backing = Backing::of_ram(*ram_)});
    build_tables();
    std::vector<std::string> warnings;
    vcpu_ = std::make_unique<tcg::X86Vcpu>(
        tcg::X86Vcpu::Config{.bus = bus_,
                             .shared = shared_,
                             .log = log_,
                             .model = make_cpu_model("max", tcg_features(), warnings).value(),
                             .backend = std::move(backend)});
}

GuestRunner::~GuestRunner() = default;

void GuestRunner::build_tables() {
    auto entry = [&](std::uint64_t table, unsigned index, std::uint64_t value) {
        std::memcpy(host(table + 8 * index), &value, 8);
    };
    constexpr std::uint64_t present = 1, writable = 2, user = 4, accessed = 0x20, dirty = 0x40,
                            no_execute = std::uint64_t(1) << 63;
    entry(pml4, 0, pdpt | present | writable | user);
    entry(pdpt, 0, pd | present | writable | user);
    entry(pml4, kernel_base >> 39 & 511, pdpt_kernel | present | writable);
    entry(pdpt_kernel, 0, pd_kernel | present | writable);
    entry(pd_kernel, 0, pt_kernel | present | writable);
    entry(pd, code_base >> 21, pt_code | present | writable | user);
    entry(pd, data_base >> 21, pt_data | present | writable | user);
    entry(pd, stack_base >> 21, pt_stack | present | writable | user);
    for (unsigned i = 0; i < 16; ++i) entry(pt_kernel, i, i << 12 | present | writable | accessed | dirty);
    for (unsigned i = 0; i < code_size >> 12; ++i)
        entry(pt_code, i, (code_phys + (i << 12)) | present | writable | user);
    for (unsigned i = 0; i < data_size >> 12; ++i)
        entry(pt_data, i,
              (data_phys + (i << 12)) | present | (i < data_writable >> 12 ? writable : 0) | user | no_execute);
    for (unsigned i = 0; i < stack_size >> 12; ++i)
        entry(pt_stack, i, (stack_phys + (i << 12)) | present | writable | user | no_execute);
    // Linux's layout, as sequences can see selectors. Flat: 0x10 and 0x18 kernel, 0x23 and 0x33 user code of 32 and
    // 64 bits, 0x2b user data; 0x40 TSS.
    std::uint64_t descriptors[] = {0,
                                   0,
                                   0x00af9b000000ffff,
                                   0x00cf93000000ffff,
                                   0x00cffb000000ffff,
                                   0x00cff3000000ffff,
                                   0x00affb000000ffff,
                                   0,
                                   0x00008b000000ffff | tss << 16,
                                   kernel_base >> 32};
    std::memcpy(host(gdt), descriptors, sizeof descriptors);
    std::uint64_t stack_top = kernel_base + kernel_stack + 0x1000;
    std::memcpy(host(tss + 4), &stack_top, 8);
    for (unsigned v = 0; v < 32; ++v) {
        // Each vector has its own HLT, so that where the CPU halts tells the vector.
        std::memset(host(stubs + v * stub_size), 0xf4, stub_size);
        std::uint64_t at = kernel_base + stubs + v * stub_size;
        std::uint64_t low = (at & 0xffff) | std::uint64_t(kernel_code) << 16 |
                            std::uint64_t(v == 3 ? 0xee00 : 0x8e00) << 32 | (at >> 16 & 0xffff) << 48;
        std::memcpy(host(idt + 16 * v), &low, 8);
        std::uint64_t high = at >> 32;
        std::memcpy(host(idt + 16 * v + 8), &high, 8);
    }
}

void GuestRunner::trace(bool on) {
    constexpr auto classes = std::uint32_t(Trace::in_asm) | std::uint32_t(Trace::op) | std::uint32_t(Trace::out_asm);
    log_.set_trace_mask(on ? classes : 0);
}

void GuestRunner::run(Sequence const& q, Outcome& out) {
    std::memset(host(code_phys), 0xcc, code_size);
    std::memcpy(host(code_phys + q.code_offset), q.code.data(), q.code.size());
    ram_->written(code_phys, code_size);
    std::memcpy(host(data_phys), q.data.data(), data_size);
    std::memcpy(host(stack_phys), q.stack.data(), stack_size);

    State s = reset_state(0, true);
    s.cr0 = cr0::pe | cr0::mp | cr0::et | cr0::ne | cr0::wp | cr0::am | cr0::pg;
    s.cr3 = pml4;
    s.cr4 = cr4::pae | cr4::osfxsr | cr4::osxmmexcpt | cr4::osxsave | cr4::fsgsbase;
    s.efer = efer::sce | efer::lme | efer::lma | efer::nxe;
    s.xcr0 = 7;
    auto flat = [](std::uint16_t selector, std::uint16_t attributes) {
        return Segment{.base = 0, .limit = 0xffffffff, .attributes = attributes, .selector = selector};
    };
    s.seg[cs] = q.long_mode ? flat(user_code64, 0xa0fb) : flat(user_code32, 0xc0fb);
    for (unsigned i : {ss, ds, es}) s.seg[i] = flat(user_data, 0xc0f3);
    for (unsigned i : {fs, gs}) s.seg[i] = {.base = 0, .limit = 0, .attributes = 0, .selector = 0};
    s.seg[tr] = {.base = kernel_base + tss, .limit = 0xffff, .attributes = 0x8b, .selector = tss_selector};
    s.seg[ldtr] = {.base = 0, .limit = 0, .attributes = 0, .selector = 0};
    s.gdtr = {kernel_base + gdt, 0x4f};
    s.idtr = {kernel_base + idt, 0x1ff};
    s.gpr = q.start.gpr;
    s.rip = q.start.rip;
    s.rflags = q.start.rflags;
    s.ymm = q.start.ymm;
    s.mxcsr = q.start.mxcsr;
    s.x87.fcw = q.start.fcw;
    s.x87.fsw = q.start.fsw;
    s.x87.tags = q.start.tags;
    unsigned top = q.start.fsw >> 11 & 7;
    for (unsigned i = 0; i < 8; ++i) {
        X87::Register& r = s.x87.r[(top + i) & 7];
        std::memcpy(&r.mantissa, q.start.st[i].data(), 8);
        std::memcpy(&r.sign_exponent, q.start.st[i].data() + 8, 2);
    }
    vcpu_->set_state(s);
    ExitReason reason = vcpu_->run(10'000'000);
    s = vcpu_->state();

    out = {};
    out.registers.gpr = s.gpr;
    if (reason == ExitReason::halted && s.rip >= kernel_base + stubs && s.rip < kernel_base + stubs + 32 * stub_size) {
        out.vector = int((s.rip - 1 - kernel_base - stubs) / stub_size);
        std::uint64_t frame = s.gpr[rsp] - kernel_base;
        if (has_error_code(out.vector)) std::memcpy(&out.error, host(frame), 8), frame += 8;
        std::memcpy(&out.registers.rip, host(frame), 8);
        std::memcpy(&out.registers.rflags, host(frame + 16), 8);
        std::memcpy(&out.registers.gpr[rsp], host(frame + 24), 8);
    } else {
        out.vector = 1000 + int(reason);
        out.registers.rip = s.rip;
        out.registers.rflags = s.rflags;
    }
    out.address = s.cr2;
    out.registers.ymm = s.ymm;
    out.registers.mxcsr = s.mxcsr;
    out.registers.fcw = s.x87.fcw;
    out.registers.fsw = s.x87.fsw;
    out.registers.tags = s.x87.tags;
    out.registers.fop = s.x87.fop;
    out.registers.fip = s.x87.fip;
    out.registers.fdp = s.x87.fdp;
    top = s.x87.fsw >> 11 & 7;
    for (unsigned i = 0; i < 8; ++i) std::memcpy(out.registers.st[i].data(), &s.x87.r[(top + i) & 7], 10);
    std::memcpy(out.data.data(), host(data_phys), data_size);
    std::memcpy(out.stack.data(), host(stack_phys), stack_size);
}

} // namespace vmm::diff
