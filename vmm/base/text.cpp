#include "vmm/base/text.h"

#include <algorithm>
#include <cctype>

namespace vmm {

unsigned edit_distance(std::string_view a, std::string_view b) {
    auto same = [](char x, char y) {
        return std::tolower(static_cast<unsigned char>(x)) == std::tolower(static_cast<unsigned char>(y));
    };
    std::vector<unsigned> before(b.size() + 1), last(b.size() + 1), row(b.size() + 1);
    for (unsigned j = 0; j <= b.size(); ++j) last[j] = j;
    for (unsigned i = 1; i <= a.size(); ++i) {
        row[0] = i;
        for (unsigned j = 1; j <= b.size(); ++j) {
            row[j] = std::min({last[j] + 1, row[j - 1] + 1, last[j - 1] + !same(a[i - 1], b[j - 1])});
            if (i > 1 && j > 1 && same(a[i - 1], b[j - 2]) && same(a[i - 2], b[j - 1]))
                row[j] = std::min(row[j], before[j - 2] + 1);
        }
        before.swap(last);
        last.swap(row);
    }
    return last[b.size()];
}

std::string_view nearest(std::string_view word, std::span<std::string_view const> candidates) {
    std::string_view best;
    unsigned limit = unsigned(std::max<std::size_t>(1, word.size() / 3)), distance = limit + 1;
    for (std::string_view candidate : candidates)
        if (unsigned d = edit_distance(word, candidate); d < distance) best = candidate, distance = d;
    return best;
}

std::string did_you_mean(std::string_view word, std::span<std::string_view const> candidates) {
    std::string_view best = nearest(word, candidates);
    return best.empty() ? "" : "; did you mean '" + std::string(best) + "'?";
}

} // namespace vmm
