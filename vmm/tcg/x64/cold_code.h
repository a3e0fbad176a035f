// ColdCode: what is to be emitted behind a block, as closures in memory that is used again for the next block.
#pragma once
#include "vmm/base/assert.h"

#include <array>
#include <cstddef>
#include <memory>
#include <new>
#include <type_traits>
#include <vector>

namespace vmm::tcg::x64 {

class ColdCode {
public:
    // `stub` is called once, in its turn.
    template <class F> void push_back(F const& stub) {
        static_assert(std::is_trivially_copyable_v<F> && std::is_trivially_destructible_v<F>);
        static_assert(alignof(F) <= alignof(std::max_align_t) && sizeof(Node) + sizeof(F) <= chunk_bytes);
        constexpr std::size_t unit = alignof(std::max_align_t);
        constexpr std::size_t bytes = (sizeof(Node) + sizeof(F) + unit - 1) / unit * unit;
        std::byte* at = take(bytes);
        new (at + sizeof(Node)) F(stub);
        Node* node = new (at) Node{[](void* f) { (*static_cast<F*>(f))(); }, nullptr};
        (last_ ? last_->next : first_) = node;
        last_ = node;
    }
    // Calls all in order, those included that these add. Empty afterwards.
    void run() {
        for (Node* node = first_; node; node = node->next) node->call(node + 1);
        first_ = last_ = nullptr;
        chunk_ = used_ = 0;
    }

private:
    struct alignas(std::max_align_t) Node {
        void (*call)(void* stub);
        Node* next;
    };
    static constexpr std::size_t chunk_bytes = 16384;
    using Chunk = std::array<std::byte, chunk_bytes>;

    std::byte* take(std::size_t bytes) {
        if (used_ + bytes > chunk_bytes) ++chunk_, used_ = 0;
        if (chunk_ == chunks_.size()) chunks_.push_back(std::make_unique<Chunk>());
        std::byte* at = chunks_[chunk_]->data() + used_;
        used_ += bytes;
        return at;
    }

    std::vector<std::unique_ptr<Chunk>> chunks_;
    std::size_t chunk_ = 0, used_ = 0;
    Node *first_ = nullptr, *last_ = nullptr;
};

} // namespace vmm::tcg::x64
