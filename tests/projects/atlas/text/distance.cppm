// How many letters apart two words are.
export module atlas.text.distance;

import std;

export namespace atlas::text {

/// Levenshtein's distance: the letters to insert, delete or replace to make one word the other.
constexpr std::size_t distance(std::string_view a, std::string_view b) {
    std::vector<std::size_t> row(b.size() + 1);
    for (std::size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (std::size_t i = 1; i <= a.size(); ++i) {
        std::size_t diagonal = std::exchange(row[0], i);
        for (std::size_t j = 1; j <= b.size(); ++j) {
            const std::size_t replaced = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
            diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, replaced}));
        }
    }
    return row[b.size()];
}

static_assert(distance("", "abc") == 3);
static_assert(distance("kitten", "sitting") == 3);

/// The word nearest to `word`; of equals, the first. Nothing when there are none.
template <std::ranges::input_range Words>
std::optional<std::string> nearest(std::string_view word, const Words& words) {
    std::optional<std::string> best;
    std::size_t least = std::numeric_limits<std::size_t>::max();
    for (const std::string& candidate : words) {
        const std::size_t apart = distance(word, candidate);
        if (apart < least) {
            least = apart;
            best = candidate;
        }
    }
    return best;
}

} // namespace atlas::text
