#include "vmm/options/suggest.h"

#include <fmt/core.h>

#include <algorithm>

namespace vmm {

namespace {
// Restricted Damerau-Levenshtein distance. Both words are command-line words, so the quadratic table is small; longer
// ones are not slips of anything.
std::size_t distance(std::string_view a, std::string_view b) {
    constexpr std::size_t longest = 64;
    if (a.size() > longest || b.size() > longest) return longest;
    std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
    for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
    for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i)
        for (std::size_t j = 1; j <= b.size(); ++j) {
            d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
        }
    return d[a.size()][b.size()];
}
} // namespace

std::string nearest(std::string_view word, std::vector<std::string_view> const& candidates) {
    std::size_t best = std::max<std::size_t>(1, (word.size() + 1) / 3) + 1;
    std::string_view found;
    for (std::string_view candidate : candidates) {
        std::size_t d = distance(word, candidate);
        if (d < best && d < candidate.size()) best = d, found = candidate;
    }
    return std::string(found);
}

std::string did_you_mean(std::string_view word, std::vector<std::string_view> const& candidates) {
    std::string found = nearest(word, candidates);
    return found.empty() ? "" : fmt::format("; did you mean '{}'?", found);
}

} // namespace vmm
