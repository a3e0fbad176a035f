// Memory for what the translator keeps of each block and looks up all over the place: in huge pages where the host
// gives them, since otherwise every look costs the host a TLB miss and every first one a page fault.
#pragma once
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <vector>

namespace vmm::tcg {

inline constexpr std::size_t huge_page_size = 2 << 20;
inline constexpr std::align_val_t huge_alignment{huge_page_size};

// For containers that grow large.
template <class T> struct HugeAllocator {
    using value_type = T;
    HugeAllocator() = default;
    template <class U> HugeAllocator(HugeAllocator<U> const&) {}
    T* allocate(std::size_t n) {
        if (n * sizeof(T) < huge_page_size) return std::allocator<T>().allocate(n);
        void* at = ::operator new(rounded(n), huge_alignment);
        madvise(at, rounded(n), MADV_HUGEPAGE);
        return static_cast<T*>(at);
    }
    void deallocate(T* p, std::size_t n) {
        if (n * sizeof(T) < huge_page_size) return std::allocator<T>().deallocate(p, n);
        ::operator delete(p, huge_alignment);
    }
    friend bool operator==(HugeAllocator, HugeAllocator) { return true; }

private:
    static std::size_t rounded(std::size_t n) { return (n * sizeof(T) + huge_page_size - 1) & ~(huge_page_size - 1); }
};

// Memory for objects of one type, which must not outlive it. Used on one thread. The type's operator new takes from it,
// its operator delete gives back. The memory of deleted objects serves others of the type and goes with the pool.
template <class T> class Pool {
public:
    Pool() = default;
    Pool(Pool const&) = delete;
    Pool& operator=(Pool const&) = delete;
    ~Pool() {
        for (Chunk* c : chunks_) ::operator delete(c, huge_alignment);
    }

#ifdef __SANITIZE_ADDRESS__ // which then sees what is used after its end
    void* take() { return ::operator new(sizeof(T)); }
    static void give_back(void* p) { ::operator delete(p); }
#else
    void* take() {
        if (Free* f = free_) {
            free_ = f->next;
            return f;
        }
        if (left_ == 0) add_chunk();
        return next_ + sizeof(T) * --left_;
    }
    static void give_back(void* p) {
        auto* chunk = reinterpret_cast<Chunk*>(reinterpret_cast<std::uintptr_t>(p) & ~(huge_page_size - 1));
        chunk->pool->free_ = new (p) Free{chunk->pool->free_};
    }
#endif

private:
    struct Free {
        Free* next;
    };
    struct alignas(64) Chunk { // huge_page_size bytes, at a multiple of that
        Pool* pool;
    };
    static_assert(alignof(T) <= alignof(Chunk) && sizeof(T) >= sizeof(Free));

    void add_chunk() {
        chunks_.reserve(chunks_.size() + 1);
        void* at = ::operator new(huge_page_size, huge_alignment);
        if (!chunks_.empty()) madvise(at, huge_page_size, MADV_HUGEPAGE); // a CPU with little code needs few pages
        chunks_.push_back(new (at) Chunk{this});
        next_ = static_cast<std::byte*>(at) + sizeof(Chunk);
        left_ = (huge_page_size - sizeof(Chunk)) / sizeof(T);
    }

    std::vector<Chunk*> chunks_;
    Free* free_ = nullptr;
    std::byte* next_ = nullptr; // the last chunk's objects; the first left_ were never taken
    std::size_t left_ = 0;
};

} // namespace vmm::tcg
