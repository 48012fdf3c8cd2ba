// Words without their endings, so that "considering" and "considered" count as one.
export module atlas.text.stem;

import std;

export namespace atlas::text {

/// A word in lower case without its common English endings. A few rules, not a dictionary.
std::string stem(std::string_view word);

} // namespace atlas::text
