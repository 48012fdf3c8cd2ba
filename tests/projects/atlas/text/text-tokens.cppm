export module atlas.text:tokens;

import std;

export namespace atlas::text {

/// The words of English text, in lower case: letters, and between letters hyphens and apostrophes.
std::vector<std::string> words(std::string_view text);

/// What stands between white space. Views into `text`.
std::vector<std::string_view> fields(std::string_view text);

/// The lines, without their ends; no empty one after a last newline. Views into `text`.
std::vector<std::string_view> lines(std::string_view text);

} // namespace atlas::text
