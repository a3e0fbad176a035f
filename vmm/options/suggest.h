// Naming what the user may have meant.
#pragma once
#include <string>
#include <string_view>
#include <vector>

namespace vmm {

// The candidate nearest to `word` by edit distance (insert, delete, replace, swap of neighbours), or "" when none is
// near enough to be a likely slip: more than a third of the word different.
std::string nearest(std::string_view word, std::vector<std::string_view> const& candidates);
// "; did you mean 'x'?" or "".
std::string did_you_mean(std::string_view word, std::vector<std::string_view> const& candidates);

} // namespace vmm
