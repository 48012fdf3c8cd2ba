// Which character belongs where. Only this module's own implementation units see it.
module atlas.text:tables;

import std;

namespace atlas::text {

constexpr bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }
constexpr bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
constexpr char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

/// Inside of a word, between two letters: `rabbit-hole`, `don't`.
constexpr bool joins_letters(char c) { return c == '-' || c == '\''; }
constexpr bool ends_sentence(char c) { return c == '.' || c == '!' || c == '?'; }

} // namespace atlas::text
