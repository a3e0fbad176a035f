#include "vmm/options/config.h"

namespace vmm {

std::string const* Properties::find(std::string_view name) const {
    for (auto item = items.rbegin(); item != items.rend(); ++item)
        if (item->first == name) return &item->second;
    return nullptr;
}

} // namespace vmm
