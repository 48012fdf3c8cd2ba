module atlas.text;

import std.compat;

namespace atlas::text {
namespace {

struct Form {
    uint8_t mask;
    uint8_t lead;
    char32_t smallest;
};

// How the first byte says how many there are; a longer form than needed is not UTF-8.
constexpr Form forms[] = {
    {0x80, 0x00, 0}, {0xE0, 0xC0, 0x80}, {0xF0, 0xE0, 0x800}, {0xF8, 0xF0, 0x10000}};

constexpr bool is_scalar(char32_t c) { return c <= 0x10FFFF && (c < 0xD800 || c > 0xDFFF); }

} // namespace

Decoded decode(std::string_view text) noexcept {
    const auto first = static_cast<uint8_t>(text.front());
    for (size_t more = 0; more < std::size(forms); ++more) {
        const Form& form = forms[more];
        if ((first & form.mask) != form.lead) continue;
        if (text.size() <= more) break;
        char32_t c = first & static_cast<uint8_t>(~form.mask);
        bool whole = true;
        for (size_t i = 1; i <= more; ++i) {
            const auto byte = static_cast<uint8_t>(text[i]);
            whole = whole && (byte & 0xC0) == 0x80;
            c = c << 6 | (byte & 0x3F);
        }
        if (whole && c >= form.smallest && is_scalar(c)) return {c, more + 1};
        break;
    }
    return {replacement, 1};
}

size_t characters(std::string_view text) noexcept {
    size_t count = 0;
    for_each_character(text, [&](char32_t) { ++count; });
    return count;
}

} // namespace atlas::text
