// PowerCutFile: a file on a disk with a volatile cache, for tests of what a power cut leaves.
#pragma once
#include "block/core/block_device.h"
#include "block/core/capabilities.h"

#include <algorithm>
#include <functional>
#include <map>
#include <random>
#include <vector>

namespace vmm::block {

// A disk with a volatile cache: what was not flushed when the power goes may be there or not, sector by sector.
class PowerCutFile final : public BlockDevice, public Resizable {
public:
    explicit PowerCutFile(std::vector<std::uint8_t> content) : stable_(std::move(content)), now_(stable_) {}
    std::uint64_t size_bytes() const override { return now_.size(); }
    bool read_only() const override { return false; }
    Limits limits() const override {
        Limits l;
        l.growable = true;
        return l;
    }
    Capabilities capabilities() override { return Capabilities{.resizable = this}; }
    Task<Result<void>> read(std::uint64_t offset, IoSpans to) override {
        std::size_t inside = offset < now_.size() ? std::min<std::size_t>(to.size_bytes(), now_.size() - offset) : 0;
        copy_to_spans(to, 0, ConstBytes(now_).subspan(std::min<std::size_t>(offset, now_.size()), inside));
        zero_spans(to, inside, to.size_bytes() - inside);
        co_return Result<void>{};
    }
    Task<Result<void>> write(std::uint64_t offset, ConstIoSpans from, Durability) override {
        std::size_t length = from.size_bytes();
        if (offset + length > now_.size()) now_.resize(offset + length);
        copy_from_spans(from, 0, Bytes(now_).subspan(offset, length));
        for (std::size_t s = offset / 512; s <= (offset + length - 1) / 512; ++s) volatile_[s] = true;
        if (on_write_) on_write_();
        co_return Result<void>{};
    }
    Task<Result<void>> flush() override {
        stable_ = now_;
        volatile_.clear();
        co_return Result<void>{};
    }
    Task<Result<void>> resize(ResizeRequest request) override {
        now_.resize(request.new_size_bytes);
        co_return Result<void>{};
    }
    // Called after each write has reached the volatile cache: also in the midst of a flush of the image above.
    void on_write(std::function<void()> call) { on_write_ = std::move(call); }
    // What the file holds now, as it is seen after the end of a process.
    std::vector<std::uint8_t> const& now() const { return now_; }
    // What the disk holds after a power cut now.
    std::vector<std::uint8_t> after_power_cut(std::mt19937_64& random) const {
        std::vector<std::uint8_t> left = stable_;
        unsigned const keep = unsigned(random() % 3); // none, half, most
        for (auto const& [s, unused] : volatile_) {
            if (keep == 0 || random() % (keep + 1) == 0) continue;
            if (s * 512 >= now_.size()) continue; // cut off since
            std::size_t n = std::min<std::size_t>(512, now_.size() - s * 512);
            if (left.size() < s * 512 + n) left.resize(s * 512 + n);
            std::copy_n(now_.begin() + std::ptrdiff_t(s * 512), n, left.begin() + std::ptrdiff_t(s * 512));
        }
        return left;
    }

private:
    std::vector<std::uint8_t> stable_, now_;
    std::map<std::size_t, bool> volatile_; // sectors written since the last flush
    std::function<void()> on_write_;
};

} // namespace vmm::block
