export module atlas.text:utf8;

import std;

export namespace atlas::text {

/// What stands for bytes that are not UTF-8.
inline constexpr char32_t replacement = 0xFFFD;

/// The first character of `text` and how many bytes it takes; `text` must not be empty.
struct Decoded {
    char32_t character;
    std::size_t bytes;
};
Decoded decode(std::string_view text) noexcept;

/// How many characters there are. Each byte that is not UTF-8 counts as one.
std::size_t characters(std::string_view text) noexcept;

/// Calls `visit` for each character in order.
template <std::invocable<char32_t> Visit>
void for_each_character(std::string_view text, Visit visit) {
    while (!text.empty()) {
        const auto [character, bytes] = decode(text);
        visit(character);
        text.remove_prefix(bytes);
    }
}

} // namespace atlas::text
