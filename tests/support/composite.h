// Several components as one Resettable and Snapshottable, for rigs of devices that work together.
#pragma once
#include "devices/core/roles.h"

#include <string>
#include <vector>

namespace vmm::test {

class CompositeSnapshottable final : public dev::Snapshottable {
public:
    explicit CompositeSnapshottable(std::vector<dev::Snapshottable*> parts) : parts_(std::move(parts)) {}
    void save(StateWriter& to) const override {
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            StateWriter part;
            parts_[i]->save(part);
            to.field("part" + std::to_string(i), part.take());
        }
    }
    Result<void> load(StateReader& from) override {
        std::vector<std::vector<std::uint8_t>> bytes(parts_.size());
        for (std::size_t i = 0; i < parts_.size(); ++i) from.field("part" + std::to_string(i), bytes[i]);
        TRY(from.finish());
        for (std::size_t i = 0; i < parts_.size(); ++i) {
            StateReader part(bytes[i]);
            TRY(parts_[i]->load(part));
        }
        return {};
    }

private:
    std::vector<dev::Snapshottable*> parts_;
};

class CompositeResettable final : public dev::Resettable {
public:
    explicit CompositeResettable(std::vector<dev::Resettable*> parts) : parts_(std::move(parts)) {}
    void reset() override {
        for (dev::Resettable* part : parts_) part->reset();
    }

private:
    std::vector<dev::Resettable*> parts_;
};

} // namespace vmm::test
