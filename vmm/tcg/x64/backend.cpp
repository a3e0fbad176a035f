#include "vmm/tcg/x64/backend.h"

#include "vmm/tcg/ir/vec_ops.h"
#include "vmm/tcg/x64/address_cache.h"
#include "vmm/tcg/x64/block.h"
#include "vmm/tcg/x64/code_cache.h"
#include "vmm/tcg/x64/disassemble.h"
#include "vmm/tcg/x64/emitter.h"
#include "vmm/tcg/x64/perf_map.h"
#include "vmm/tcg/x64/thunks.h"

#include <xbyak/xbyak_util.h>

#include <algorithm>
#include <optional>

namespace vmm::tcg::x64 {

namespace {

// Room a block may need at most: far more than any block takes (blocks are bounded by the lifter).
constexpr std::size_t bytes_per_inst = 640, bytes_per_block = 16384;
constexpr unsigned address_caches = 8;

// Guest registers by number -> host register; guests with x86's numbering keep their register numbers. -1: context.
constexpr int host_of_register[] = {host::rax, host::rcx, host::rdx, host::rbx, host::r12, host::r13,
                                    host::rsi, host::rdi, host::r8,  host::r9,  host::r10};

Pins make_pins(GuestInfo const& guest) {
    Pins pins;
    for (std::size_t i = 0; i < std::min<std::size_t>(guest.registers.size(), max_unpinned); ++i)
        if (i < std::size(host_of_register))
            pins.add(guest.registers[i], host_of_register[i]);
        else
            pins.add_unpinned(guest.registers[i], unsigned(i));
    return pins;
}

std::uint32_t host_features() {
    Xbyak::util::Cpu cpu;
    using Cpu = Xbyak::util::Cpu;
    std::uint32_t bits = 0;
    auto add = [&](ir::VecFeature f, bool has) { bits |= std::uint32_t(has) << unsigned(f); };
    using enum ir::VecFeature;
    for (auto f : {sse, sse2, sse3, ssse3, sse41, sse42, avx, avx2}) add(f, true); // supported()
    add(aes, cpu.has(Cpu::tAESNI));
    add(pclmul, cpu.has(Cpu::tPCLMULQDQ));
    add(sha, cpu.has(Cpu::tSHA));
    add(fma, cpu.has(Cpu::tFMA));
    add(f16c, cpu.has(Cpu::tF16C));
    return bits;
}

} // namespace

bool supported() {
    Xbyak::util::Cpu cpu;
    using Cpu = Xbyak::util::Cpu;
    return cpu.has(Cpu::tAVX2) && cpu.has(Cpu::tBMI1) && cpu.has(Cpu::tBMI2) && cpu.has(Cpu::tLZCNT) &&
           cpu.has(Cpu::tPOPCNT);
}

struct X64Backend::Impl {
    Impl(EngineContext& c, GuestInfo const& g, Options const& o, std::unique_ptr<CodeCache> memory)
        : context(c), guest(g), options(o), pins(make_pins(g)), cache(std::move(memory)), assembler(*cache),
          thunks(assembler, pins, context, guest, {go_on, find}) {
        context.backend = this;
        thunks.emit();
        cache->commit(assembler.getSize());
        thunk_bytes = cache->used();
        emit.count_instructions = o.count_instructions;
        emit.atomic = !o.one_cpu;
        emit.profile = o.profile;
        random = o.seed;
        emit.features = host_features() & o.vector_features;
        miss = cache->executable(thunks.leave_indirect);
        for (AddressCache& a : caches) a.clear(miss);
        if (!o.perf_map) return;
        perf_map.emplace();
        perf_map->add(cache->executable(cache->writable()), thunk_bytes, "jit_thunks");
    }

    // Torture's dice: true once in `one_in`; never for 0.
    bool chance(unsigned one_in) {
        if (!one_in) return false;
        random = random * 6364136223846793005u + 1442695040888963407u;
        return (random >> 33) % one_in == 0;
    }
    void select_addresses();
    bool make_store(LinkSite& site);
    void open(LinkSite& site);
    void undo_links(X64Block& block);
    static bool go_on(EngineContext& e) {
        if (!e.code_guard || !e.code_guard->may_continue(e)) return false;
        static_cast<Impl*>(e.backend)->select_addresses();
        return true;
    }
    static void const* find(EngineContext& e, std::uint64_t address) {
        Impl& m = *static_cast<Impl*>(e.backend);
        auto* block = e.code_guard ? static_cast<X64Block*>(e.code_guard->find(e, address)) : nullptr;
        if (!block || block->transient) return nullptr;
        m.select_addresses();
        m.remember(*block, address);
        return m.cache->executable(block->indirect);
    }
    void remember(X64Block& block, std::uint64_t address);
    void name_for_perf(X64Block const& block, std::uint64_t address);

    EngineContext& context;
    GuestInfo guest;
    Options options;
    Pins pins;
    std::unique_ptr<CodeCache> cache;
    Assembler assembler;
    Thunks thunks;
    EmitOptions emit;
    std::size_t thunk_bytes = 0;
    unsigned live = 0; // translations not yet destroyed
    Pool<X64Block> blocks;
    bool abandoned = false;
    std::array<AddressCache, address_caches> caches;
    AddressCache* current = nullptr;
    std::uint64_t clock = 0, random = 1;
    std::uint8_t const* miss = nullptr;
    BackendStatistics stats;
    EmitBuffers buffers;
    X64Block const* last = nullptr;
    std::uint64_t last_address = 0;
    std::optional<PerfMap> perf_map;
};

X64Backend::X64Backend(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
X64Backend::~X64Backend() = default;

Result<std::unique_ptr<X64Backend>> X64Backend::create(EngineContext& context, GuestInfo const& guest,
                                                       Options const& options) {
    auto cache = TRY(CodeCache::create(options.cache_bytes));
    auto impl = std::make_unique<Impl>(context, guest, options, std::move(cache));
    return std::unique_ptr<X64Backend>(new X64Backend(std::move(impl)));
}

std::unique_ptr<Translation> X64Backend::translate(ir::Block const& block) {
    Impl& m = *impl_;
    if (m.live == 0 && m.cache->used() > m.thunk_bytes) { // nobody has a pointer into it
        m.cache->reset(m.thunk_bytes);
        m.assembler.setSize(m.thunk_bytes);
        m.thunks.forget_helpers();
        for (AddressCache& a : m.caches) a.clear(m.miss);
        ++m.stats.resets;
    }
    if (m.cache->room() < bytes_per_block + bytes_per_inst * block.insts.size()) {
        VMM_ASSERT(m.live != 0);
        return nullptr;
    }
    if (m.live && m.chance(m.options.refuse_one_in)) return nullptr;
    std::unique_ptr<X64Block> out(new (m.blocks) X64Block(*this, &m.live));
    m.assembler.setSize(m.cache->used());
    m.last = out.get();
    m.last_address = block.address;
    Emitter(m.assembler, m.thunks, m.pins, m.guest, m.context, m.emit, block, *out, m.buffers).run();
    m.cache->commit(m.assembler.getSize() - m.cache->used());
    ++m.stats.blocks;
    m.stats.guest_bytes += block.guest_bytes;
    m.stats.host_bytes += out->host_bytes;
    if (m.perf_map) m.name_for_perf(*out, block.address);
    return out;
}

void X64Backend::Impl::name_for_perf(X64Block const& block, std::uint64_t address) {
    for (Thunks::Made const& made : thunks.take_made_helpers())
        perf_map->add(cache->executable(made.code), made.bytes,
                      fmt::format("jit_helper_{}", guest.helper(made.helper).name));
    perf_map->add(cache->executable(block.indirect), block.host_bytes, fmt::format("guest_{:x}", address));
}

// The cache of addresses for the address space and mode the context is in.
void X64Backend::Impl::select_addresses() {
    std::uint64_t const* fetches = context.fetch_epoch;
    std::uint64_t epoch = fetches ? *fetches : 0;
    auto holds = [&](AddressCache const& a) { return a.fetches == fetches && a.mode == context.mode && a.used_at; };
    if (current && holds(*current) && current->epoch == epoch) return;
    AddressCache* oldest = &caches[0];
    for (AddressCache& a : caches) {
        if (holds(a)) {
            oldest = &a;
            break;
        }
        if (a.used_at < oldest->used_at) oldest = &a;
    }
    if (!holds(*oldest) || oldest->epoch != epoch) {
        oldest->clear(miss);
        oldest->fetches = fetches;
        oldest->mode = context.mode;
        oldest->epoch = epoch;
    }
    oldest->used_at = ++clock;
    current = oldest;
    context.address_cache = &oldest->table;
}

void X64Backend::Impl::remember(X64Block& block, std::uint64_t address) {
    AddressCache::Entry& entry = current->entry(address);
    std::uint8_t const* code = cache->executable(block.indirect);
    if (entry.address != address || entry.code != code) current->set(entry, {address, code});
}

RunResult X64Backend::run(Translation& first) {
    Impl& m = *impl_;
    EngineContext& e = m.context;
    auto& block = static_cast<X64Block&>(first);
    auto set_pc = [&](std::int64_t offset) { *m.guest.pc = (e.pc_base + std::uint64_t(offset)) & m.guest.pc_mask(e); };
    // Ordered behind the vCPU's word that it is in guest code: see CodeTracker::prepare_page.
    if (e.exit_request.load(std::memory_order_seq_cst)) {
        set_pc(block.start);
        return {RunEnd::exit_request, nullptr};
    }
    m.select_addresses();
    if (!block.transient)
        m.remember(block, (e.pc_base + std::uint64_t(std::int64_t(block.start))) & m.guest.pc_mask(e));
    auto enter = reinterpret_cast<Thunks::Enter>(reinterpret_cast<std::uintptr_t>(m.cache->executable(m.thunks.enter)));
    Leave leave = enter(&e, m.cache->executable(block.code));
    RunEnd end = RunEnd(leave.kind);
    if (e.fault_pending) {
        if (end == RunEnd::fault) set_pc(std::int64_t(leave.value));
        return {RunEnd::fault, nullptr};
    }
    auto* site = reinterpret_cast<LinkSite*>(leave.value);
    switch (end) {
    case RunEnd::dispatch: return {RunEnd::dispatch, nullptr};
    case RunEnd::exit_request:
    case RunEnd::next:
        if (!site)
            *m.guest.pc &= m.guest.pc_mask(e);
        else
            set_pc(site->offset);
        return {end, end == RunEnd::next ? site : nullptr};
    default: VMM_UNREACHABLE();
    }
}

void X64Backend::link(LinkSite& site, Translation& to) {
    Impl& m = *impl_;
    auto& target = static_cast<X64Block&>(to);
    if (site.target == &target) return;
    VMM_ASSERT(!site.target);
    if (m.chance(m.options.unlink_one_in)) {
        m.current->clear(m.miss);
        return m.undo_links(target);
    }
    // On its way through `checked` the guest may be interrupted.
    bool const around = (target.flags_dead && !target.checked) || !site.flags;
    if (!around && !site.far && !m.make_store(site)) return;
    Assembler::bind({around ? site.near : site.far}, target.checked ? target.checked : target.code);
    if (!around) Assembler::bind({site.near}, site.store);
    site.target = &target;
    site.previous = nullptr;
    site.next = target.incoming;
    if (site.next) site.next->previous = &site;
    target.incoming = &site;
    ++m.stats.links, ++m.stats.links_now;
}

// The code that stores the condition codes on the way from the site to a target that wants them. False: no room.
bool X64Backend::Impl::make_store(LinkSite& site) {
    constexpr std::size_t enough = 128;
    if (cache->room() < enough) return false;
    assembler.setSize(cache->used());
    site.store = assembler.here();
    emit_store(assembler, ExitWord::unpack(site.flags));
    site.far = assembler.jump().field;
    cache->commit(assembler.getSize() - cache->used());
    return true;
}

void X64Backend::Impl::open(LinkSite& site) {
    Assembler::bind({site.near}, site.stub);
    (site.previous ? site.previous->next : site.target->incoming) = site.next;
    if (site.next) site.next->previous = site.previous;
    site.target = nullptr;
    --stats.links_now;
}

void X64Backend::Impl::undo_links(X64Block& block) {
    while (block.incoming) open(*block.incoming);
    for (LinkSite& site : block.sites)
        if (site.target) open(site);
}

void X64Backend::unlink(Translation& to) {
    if (impl_->abandoned) return;
    auto& block = static_cast<X64Block&>(to);
    impl_->undo_links(block);
    if (impl_->last == &block) impl_->last = nullptr;
    // Address caches may lead here until they are cleared.
    auto* entry = const_cast<std::uint8_t*>(block.indirect);
    *entry = 0xe9;
    Assembler::bind({entry + 1}, impl_->thunks.leave_indirect);
}

void X64Backend::abandon() { impl_->abandoned = true; }

BackendStatistics X64Backend::statistics() const {
    BackendStatistics s = impl_->stats;
    s.cache_used = impl_->cache->used();
    s.cache_size = impl_->cache->size();
    return s;
}

std::string X64Backend::disassemble(Translation const& translation) const {
    auto& block = static_cast<X64Block const&>(translation);
    return x64::disassemble({block.indirect, block.host_bytes},
                            reinterpret_cast<std::uintptr_t>(impl_->cache->executable(block.indirect)));
}

std::string X64Backend::disassemble_last() const {
    X64Block const* block = impl_->last;
    if (!block) return {};
    std::string text;
    std::uint8_t const* from = block->indirect;
    auto up_to = [&](std::uint8_t const* end) {
        text += x64::disassemble({from, std::size_t(end - from)},
                                 reinterpret_cast<std::uintptr_t>(impl_->cache->executable(from)));
        from = end;
    };
    for (Mark const& mark : impl_->buffers.marks) {
        up_to(mark.code);
        text += mark.offset == mark_end ? "  -- block end\n"
                : mark.offset == mark_slow_paths
                    ? "  -- slow paths\n"
                    : fmt::format("  -- guest addr 0x{:08x}\n",
                                  impl_->last_address + std::uint64_t(std::int64_t(mark.offset - block->start)));
    }
    up_to(block->indirect + block->host_bytes);
    return text;
}

} // namespace vmm::tcg::x64
