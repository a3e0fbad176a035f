// Store: the metadata of one open image (header, L1, L2 tables, refcounts) and the order in which it reaches the disk.
#pragma once
#include "block/core/context.h"
#include "block/formats/qcow2/areas.h"
#include "block/formats/qcow2/refcounts.h"

#include <deque>
#include <functional>
#include <string>

namespace vmm::block::qcow2 {

// Requests that use host clusters right now, by generation: a freed cluster may be given away again only when every
// request that may still know its place has ended.
class Generations {
public:
    std::uint64_t enter() { return ++counts_.back(), first_ + counts_.size() - 1; }
    void leave(std::uint64_t generation) {
        --counts_[generation - first_];
        while (counts_.size() > 1 && counts_.front() == 0) counts_.pop_front(), ++first_;
    }
    // Begins a new generation; the number of the one that ended.
    std::uint64_t advance() { return counts_.push_back(0), first_ + counts_.size() - 2; }
    // Every request of `generation` and before has ended.
    bool over(std::uint64_t generation) {
        while (counts_.size() > 1 && counts_.front() == 0) counts_.pop_front(), ++first_;
        return generation < first_;
    }

private:
    std::deque<std::uint64_t> counts_{0};
    std::uint64_t first_ = 0;
};
class GenerationGuard {
public:
    explicit GenerationGuard(Generations& generations) : generations_(generations), number_(generations.enter()) {}
    ~GenerationGuard() { generations_.leave(number_); }
    GenerationGuard(GenerationGuard const&) = delete;
    GenerationGuard& operator=(GenerationGuard const&) = delete;

private:
    Generations& generations_;
    std::uint64_t number_;
};

// All changes are made in memory and reach the file by commit(), which writes, with a flush of the file between each
// two steps that need it:
//   refcount blocks -> refcount table (-> header, when it moved) -> L2 tables -> L1 table (-> header, when it moved)
// A reference therefore never is on disk before the count and the content it refers to, and clusters are given back
// only after the commit that made their last reference vanish. Whatever is lost in a crash, the worst left is a leak.
class Store {
public:
    struct Setup {
        BlockContext& context;
        std::unique_ptr<BlockDevice> file;
        std::string filename;
        Header header;
        bool writable = false;
        bool discard = false; // pass discards of freed clusters on to the file
        std::uint64_t l2_cache_bytes = 32u << 20;
        std::uint64_t refcount_cache_bytes = 4u << 20;
    };
    explicit Store(Setup setup);

    // Guest data lies in `data` instead of the image file; flushed where the file is.
    void set_data_file(BlockDevice* data) { data_file_ = data; }
    // Reads L1 and the refcount table.
    Task<Result<void>> load();

    BlockContext& context() { return s_.context; }
    BlockDevice& file() { return *s_.file; }
    std::string const& filename() const { return s_.filename; }
    Header& header() { return s_.header; }
    Header const& header() const { return s_.header; }
    Geometry const& geometry() const { return geometry_; }
    Refcounts& refcounts() { return refcounts_; }
    TableCache& l2_tables() { return l2_tables_; }
    AreaMap& areas() { return areas_; }
    Generations& generations() { return generations_; }
    bool writable() const { return s_.writable && !corrupt_; }
    void make_read_only() { s_.writable = false; }
    // A check that repairs writes to an image marked corrupt, too.
    void allow_repair(bool allow) { repairing_ = allow; }
    // New refcount table and blocks, already written, take the place of the old ones.
    Task<Result<void>> adopt_refcounts(std::uint64_t table_offset, std::uint64_t table_clusters,
                                       std::vector<std::uint64_t> table);
    // Refcounts of 2^order bits (version 3): the whole structure is written behind everything else, one write of the
    // header switches to it, then the old one is freed; a crash leaves at worst leaks. No other request may be in
    // flight. `progress`, if any, is told how many of how many blocks are written.
    Task<Result<void>> change_refcount_width(unsigned order,
                                             std::function<void(std::uint64_t, std::uint64_t)> progress);
    // What change_refcount_width() would refuse, in QEMU's words, found without changing anything.
    Task<Result<void>> check_refcount_width(unsigned order);
    bool passes_discards() const { return s_.discard; }

    // --- L1 and L2
    std::vector<std::uint64_t> const& l1() const { return l1_; }
    // The L2 table for a guest offset if it is in memory, else null.
    TableRef l2_cached(std::uint64_t guest);
    // The L2 table for reading; null where L1 has none (or ends before).
    Task<Result<TableRef>> l2_for_read(std::uint64_t guest);
    // The L2 table for writing: made, or copied from a shared one, as needed.
    Task<Result<TableRef>> l2_for_write(std::uint64_t guest);
    void set_l2_entry(Table& table, std::uint64_t index, L2Entry entry);
    // More (never fewer) L1 entries; the table moves when it must. `exact`: no entries to spare.
    Task<Result<void>> grow_l1(std::uint64_t entries, bool exact = false);
    // Releases the L2 table of an L1 entry (whose clusters the caller has released).
    void drop_l2(std::uint64_t l1_index);
    // Takes a whole other L1 (applying a snapshot, shrinking), with its place in the file. Nothing is freed or counted.
    void set_l1_entry(std::uint64_t index, std::uint64_t entry);
    void replace_l1(std::vector<std::uint64_t> l1) { l1_ = std::move(l1), l1_dirty_ = true; }

    // --- giving clusters back
    // Their reference is gone from the tables in memory; counted down once that is on disk.
    void release(std::uint64_t offset, std::uint64_t clusters);
    // The same for what an L2 entry refers to.
    void release_entry(L2Entry const& entry, bool external);

    // --- writing out
    // Everything changed so far is on stable storage when it finishes; several callers share one pass.
    Task<Result<void>> commit();
    // commit() when so much is dirty that memory asks for it.
    Task<Result<void>> relieve();
    // Until no released cluster is left to count down.
    Task<Result<void>> settle();
    // The header's whole cluster, after a commit(). It names the L1 and refcount tables that are on disk: where one has
    // moved since, the next commit() says so.
    Task<Result<void>> write_header();
    // A feature bit that must be on disk before anything else: dirty, corrupt, autoclear.
    Task<Result<void>> write_features();

    // --- the file lies
    // Marks the image corrupt, on disk too where it is writable, and refuses to write to it from now on. Returns the
    // error for the request that found it.
    Task<Error> corrupt(std::string what);
    // `failure` with the image marked corrupt if it came from contradicting tables; for errors of refcounts().
    Task<Error> note_corruption(Error failure);
    // An error when [offset, +bytes) is metadata: a data write must not go there.
    bool is_metadata(std::uint64_t offset, std::uint64_t bytes) const {
        return areas_.conflict(offset, bytes).has_value();
    }

private:
    struct Released {
        std::uint64_t offset, clusters;
    };
    struct Waiting { // on disk already, but perhaps still known to a running request
        std::uint64_t generation;
        std::vector<Released> what;
    };
    struct Pass; // one commit's snapshot of what is dirty
    struct TablePlaces {
        std::uint64_t l1_offset, refcount_table_offset;
        std::uint32_t l1_entries, refcount_table_clusters;
    };
    static TablePlaces places_in(Header const& h) {
        return {h.l1_offset, h.refcount_table_offset, h.l1_entries, h.refcount_table_clusters};
    }
    Task<Result<void>> run_commit();
    Task<Result<void>> write_pass(Pass& pass);
    Task<Result<void>> write_places(TablePlaces places);
    Task<Result<void>> write_tables(TableCache& cache, std::vector<TableCopy>& copies, Area area);
    Task<Result<void>> write_table_array(std::vector<std::uint64_t> const& entries, std::uint64_t offset,
                                         std::uint64_t room_entries);
    Task<Result<void>> apply_released();
    Task<Result<void>> discard_in_file(Released what);
    bool anything_dirty();
    Task<Result<void>> flush_files();

    Setup s_;
    Geometry geometry_;
    AreaMap areas_;
    Refcounts refcounts_;
    TableCache l2_tables_;
    std::vector<std::uint64_t> l1_; // host order; header().l1_entries of them
    bool l1_dirty_ = false, l1_moved_ = false;
    BlockDevice* data_file_ = nullptr;
    AsyncMutex l2_mutex_; // making and copying L2 tables, growing L1
    AsyncMutex commit_mutex_;
    AsyncMutex header_mutex_; // writing to the header's cluster
    TablePlaces places_;      // what the header on disk says
    std::uint64_t commits_asked_ = 0, commits_done_ = 0;
    std::vector<Released> released_; // not yet on disk
    std::deque<Waiting> waiting_;
    Generations generations_;
    bool corrupt_ = false; // found while open
    bool repairing_ = false;
};

} // namespace vmm::block::qcow2
