// Clusters: guest data of an open image: mapping, reading, writing with copy-on-write, zeroes, discards, compression.
#pragma once
#include "block/core/capabilities.h"
#include "block/core/image.h"
#include "block/crypto/cipher.h"
#include "block/formats/qcow2/compress.h"
#include "block/formats/qcow2/store.h"

namespace vmm::block::qcow2 {

// A stretch of guest bytes that are the same kind and, for data, lie in one piece.
struct Run {
    Kind kind = Kind::unallocated;
    std::uint64_t length = 0;
    std::uint64_t host = 0; // data (and zeroes with a preallocated cluster): where the first byte lies
    bool has_host = false;
    bool writable = false;        // data that may be overwritten in place
    std::uint64_t descriptor = 0; // of a compressed cluster
};

// Offsets are guest offsets; those past the disk's end address the VM-state area. Sizes are the caller's to check.
class Clusters {
public:
    struct Needs {
        Store& store;
        Image& image;          // for its backing image
        BlockDevice& data;     // where guest data lies
        bool external = false; // `data` is an external file
        SectorCipher const* cipher = nullptr;
        bool cipher_by_host = false; // sectors are numbered by their place in the file (LUKS), not by the guest's
        DebugEvents* debug = nullptr;
    };
    explicit Clusters(Needs needs)
        : n_(needs), store_(needs.store), g_(needs.store.geometry()), compressor_(needs.store.header().compression) {}

    Task<Result<void>> read(std::uint64_t guest, IoSpans to);
    Task<Result<void>> write(std::uint64_t guest, ConstIoSpans from);
    Task<Result<void>> write_zeroes(std::uint64_t guest, std::uint64_t length, ZeroFlags flags);
    Task<Result<void>> discard(std::uint64_t guest, std::uint64_t length);
    // Leaves what lies in the range, part of one L2 table's, to the backing file.
    Task<Result<void>> forget(std::uint64_t guest, std::uint64_t length);
    // One cluster, the last one may be shorter.
    Task<Result<void>> write_compressed(std::uint64_t guest, ConstIoSpans from);
    // At most `length` > 0.
    Task<Result<Run>> map(std::uint64_t guest, std::uint64_t length);
    // Allocates host clusters for the range without writing to them (preallocation).
    Task<Result<void>> preallocate(std::uint64_t guest, std::uint64_t length);

    // Rewrites zero clusters of [0, end) as version 2 knows them: unallocated where nothing is below, else written out.
    Task<Result<void>> expand_zeroes(std::uint64_t end, std::function<void(std::uint64_t, std::uint64_t)> progress);

    void set_disk_size(std::uint64_t bytes) { disk_size_ = bytes; }

private:
    struct Filled { // bytes around a write that complete its clusters
        std::vector<std::uint8_t> head, tail;
    };
    struct Placement {          // where a run of clusters is to be written
        std::uint64_t host = 0; // of the first cluster
        std::uint64_t clusters = 0;
        bool fresh = false;     // never written: reads as zeroes
        bool allocated = false; // by us, to give back on failure
    };
    Result<Run> run_in(Table const& table, std::uint64_t guest, std::uint64_t length) const;
    Result<void> check_entry(L2Entry const& e, std::uint64_t guest) const;
    bool needs_new_cluster(L2Entry const& e) const { return !has_host_cluster(e, n_.external) || !e.copied(); }
    std::uint64_t backed_bytes() const; // how far the backing image reaches into ours
    bool reads_zero(L2Entry const& e, std::uint64_t guest, std::uint64_t length) const;
    std::uint64_t next_data(L2Entry const& entry, std::uint64_t guest) const;
    Task<Error> refuse_write(std::uint64_t host, std::uint64_t length);

    Task<Result<void>> read_run(Run run, std::uint64_t guest, IoSpans to);
    Task<Result<void>> read_zeroes(IoSpans to);
    Task<Result<void>> read_watched(Run run, IoSpans to);
    Task<Result<void>> read_encrypted(Run run, std::uint64_t guest, IoSpans to);
    Task<Result<void>> read_compressed(Run run, std::uint64_t guest, IoSpans to);
    Task<Result<void>> read_unallocated(std::uint64_t guest, IoSpans to);

    Task<Result<void>> write_aligned(std::uint64_t guest, ConstIoSpans from);
    Task<Result<void>> write_encrypted(std::uint64_t guest, ConstIoSpans from);
    Task<Result<void>> write_host(std::uint64_t host, std::uint64_t guest, ConstIoSpans from);
    // Writes as much as goes in one piece from `skip` on into clusters that must be allocated first; bytes written, 0
    // when somebody else has allocated them meanwhile.
    Task<Result<std::uint64_t>> write_allocating(std::uint64_t guest, ConstIoSpans from, std::uint64_t skip);
    Task<Result<Placement>> place(std::uint64_t start, std::uint64_t clusters);
    Task<Result<void>> write_placed(Placement at, TableRef table, std::uint64_t guest, ConstIoSpans from,
                                    std::uint64_t skip, std::uint64_t length);
    Task<Result<void>> fill(std::uint64_t guest, L2Entry old, bool fresh, std::vector<std::uint8_t>& bytes);
    void link(Table& table, Placement const& at, std::uint64_t guest, std::uint64_t from, std::uint64_t to);

    Task<Result<void>> zero_clusters(std::uint64_t guest, std::uint64_t end, ZeroFlags flags);
    void zero_entry(Table& table, std::uint64_t index, L2Entry old, std::uint64_t from, std::uint64_t to, bool unmap);
    Task<Result<void>> zero_by_writing(std::uint64_t guest, std::uint64_t length);
    Task<Result<void>> store_compressed(std::uint64_t guest, std::vector<std::uint8_t> const& compressed, bool& stored);
    Task<Result<void>> write_compressed_bytes(std::uint64_t host, ConstBytes bytes);

    // Below this a hop to another thread costs more than the cipher.
    static constexpr std::size_t inline_cipher_bytes = 16384;
    Needs n_;
    Store& store_;
    Geometry g_;
    std::uint64_t disk_size_ = 0;
    Compressor compressor_;
    RangeLocks allocating_; // guest clusters whose mapping is about to change
    RangeLocks sectors_;    // encrypted sectors being written
};

} // namespace vmm::block::qcow2
