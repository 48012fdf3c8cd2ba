module atlas.text.stem;

namespace atlas::text {
namespace {

struct Rule {
    std::string_view ending;
    std::string_view becomes;
    std::size_t keep; // letters that must stand before the ending
};

// The first rule that fits is applied, once.
constexpr Rule rules[] = {
    {"ations", "ate", 3}, {"ation", "ate", 3}, {"ingly", "", 3}, {"sses", "ss", 1}, {"ies", "y", 2},
    {"ing", "", 3},       {"edly", "", 3},     {"ily", "y", 2},  {"ed", "", 3},     {"ly", "", 3},
    {"ss", "ss", 1},      {"us", "us", 1},     {"es", "e", 3},   {"s", "", 3},
};

constexpr bool is_vowel(char c) { return std::string_view("aeiouy").contains(c); }

/// "sitt" (from "sitting") is "sit", but "tell" stays.
void undouble(std::string& word) {
    if (word.size() < 4 || is_vowel(word.back()) || word.back() != word[word.size() - 2]) return;
    if (!std::string_view("lsz").contains(word.back())) word.pop_back();
}

} // namespace

std::string stem(std::string_view word) {
    for (const Rule& rule : rules) {
        if (!word.ends_with(rule.ending) || word.size() < rule.keep + rule.ending.size()) continue;
        std::string stemmed(word.substr(0, word.size() - rule.ending.size()));
        if (std::ranges::none_of(stemmed, is_vowel)) break;
        if (rule.becomes.empty()) undouble(stemmed);
        return stemmed.append(rule.becomes);
    }
    return std::string(word);
}

} // namespace atlas::text
