// FNV-1a: small, the same everywhere, and good enough for tables and patterns. Not for secrets.
export module atlas.hash;

import std;

namespace atlas {

constexpr std::uint64_t offset_basis = 0xcbf29ce484222325;
constexpr std::uint64_t prime = 0x100000001b3;

} // namespace atlas

export namespace atlas {

class Hasher {
public:
    constexpr Hasher& add(std::string_view text) noexcept {
        for (const char c : text) mix(static_cast<unsigned char>(c));
        return *this;
    }

    /// Adds a number as eight bytes, the lowest first.
    constexpr Hasher& add(std::uint64_t number) noexcept {
        for (int byte = 0; byte < 8; ++byte) mix(static_cast<unsigned char>(number >> (8 * byte)));
        return *this;
    }

    constexpr std::uint64_t value() const noexcept { return state_; }

private:
    constexpr void mix(unsigned char byte) noexcept { state_ = (state_ ^ byte) * prime; }

    std::uint64_t state_ = offset_basis;
};

constexpr std::uint64_t hash(std::string_view text) noexcept { return Hasher{}.add(text).value(); }

static_assert(hash("") == 0xcbf29ce484222325);
static_assert(hash("a") == 0xaf63dc4c8601ec8c);

} // namespace atlas
