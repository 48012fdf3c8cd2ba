module atlas.text;

import std;
import :tables;

namespace atlas::text {

std::vector<std::string_view> sentences(std::string_view text) {
    std::vector<std::string_view> found;
    std::size_t start = 0;
    bool has_letter = false;
    const auto end_at = [&](std::size_t end) {
        if (has_letter) found.push_back(text.substr(start, end - start));
        start = end;
        has_letter = false;
    };
    for (std::size_t at = 0; at < text.size(); ++at) {
        has_letter = has_letter || is_letter(text[at]);
        if (ends_sentence(text[at]) || text.substr(at).starts_with("\n\n")) end_at(at + 1);
    }
    end_at(text.size());
    return found;
}

} // namespace atlas::text
