export module atlas.table:cell;

import std;

export namespace atlas {

enum class Align { left, right };

/// `text` in a field of `width` characters. ASCII: a byte is a character.
std::string pad(std::string_view text, std::size_t width, Align align);

} // namespace atlas
