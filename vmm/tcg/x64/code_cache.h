// CodeCache: memory for generated code: shared memory mapped twice, writable here and executable there (W^X), in huge
// pages where the host gives them.
#pragma once
#include "vmm/base/result.h"

#include <cstddef>
#include <cstdint>
#include <memory>

namespace vmm::tcg::x64 {

// Bump allocation; everything is given back at once (reset). Both views have the same layout, so relative jumps
// computed in the writable one hold in the executable one.
class CodeCache {
public:
    // Fails when the host refuses the mappings.
    static Result<std::unique_ptr<CodeCache>> create(std::size_t bytes);
    ~CodeCache();
    CodeCache(CodeCache const&) = delete;
    CodeCache& operator=(CodeCache const&) = delete;

    std::uint8_t* writable() const { return writable_; }
    std::size_t size() const { return size_; }
    std::size_t used() const { return used_; }
    std::size_t room() const { return size_ - used_; }
    std::uint8_t const* executable(void const* in_writable) const {
        return executable_ + (static_cast<std::uint8_t const*>(in_writable) - writable_);
    }
    bool contains_executable(void const* p) const {
        auto* q = static_cast<std::uint8_t const*>(p);
        return q >= executable_ && q < executable_ + size_;
    }
    // Where the next code goes; `commit` takes the bytes.
    std::uint8_t* next() const { return writable_ + used_; }
    void commit(std::size_t bytes);
    // Forgets everything but the first `keep` bytes.
    void reset(std::size_t keep) { used_ = keep; }

private:
    struct Reserved {
        void* at;
        std::size_t bytes;
    };
    CodeCache(Reserved reserved, std::uint8_t* writable, std::uint8_t* executable, std::size_t size)
        : reserved_(reserved), writable_(writable), executable_(executable), size_(size) {}
    Reserved reserved_; // both views lie in it
    std::uint8_t* writable_;
    std::uint8_t* executable_;
    std::size_t size_, used_ = 0;
    std::size_t ready_ = 0; // so far huge pages have been asked for
};

} // namespace vmm::tcg::x64
