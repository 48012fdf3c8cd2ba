export module atlas.text:sentences;

import std;

export namespace atlas::text {

/// The sentences: up to a full stop, an exclamation or a question mark, or an empty line. Views into `text`.
std::vector<std::string_view> sentences(std::string_view text);

} // namespace atlas::text
