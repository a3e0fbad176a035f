// Small text helpers for messages.
#pragma once
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmm {

// Edit distance (insert, delete, replace, swap of neighbours each cost 1), case-insensitive.
unsigned edit_distance(std::string_view a, std::string_view b);
// The candidate nearest to `word` if it is near enough to be what was meant, else empty.
std::string_view nearest(std::string_view word, std::span<std::string_view const> candidates);
// "; did you mean 'X'?" or "".
std::string did_you_mean(std::string_view word, std::span<std::string_view const> candidates);

} // namespace vmm
