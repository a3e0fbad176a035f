#include "block/core/secret_store.h"

namespace vmm::block {

Result<std::vector<std::uint8_t>> SecretStore::find(std::string const& id) const {
    auto found = secrets_.find(id);
    if (found == secrets_.end()) return error("No secret with id '{}'", id);
    return found->second;
}

} // namespace vmm::block
