// SecretStore: passphrases and keys by id (`--object secret,id=...`).
#pragma once
#include "vmm/base/result.h"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace vmm::block {

class SecretStore {
public:
    void add(std::string id, std::vector<std::uint8_t> secret) { secrets_[std::move(id)] = std::move(secret); }
    // "No secret with id 'x'" when there is none.
    Result<std::vector<std::uint8_t>> find(std::string const& id) const;

private:
    std::map<std::string, std::vector<std::uint8_t>> secrets_;
};

} // namespace vmm::block
