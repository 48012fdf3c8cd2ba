// Integer arithmetic that says when it does not fit, and what <cmath> has for floating point only.
export module atlas.ints;

import std;

export namespace atlas {

/// a + b, or nothing where it does not fit.
template <std::integral T>
constexpr std::optional<T> checked_add(T a, T b) noexcept {
    T sum{};
    if (__builtin_add_overflow(a, b, &sum)) return std::nullopt;
    return sum;
}

/// a * b, or nothing where it does not fit.
template <std::integral T>
constexpr std::optional<T> checked_mul(T a, T b) noexcept {
    T product{};
    if (__builtin_mul_overflow(a, b, &product)) return std::nullopt;
    return product;
}

/// The largest r with r * r <= n.
std::uint64_t isqrt(std::uint64_t n) noexcept;

/// a * b / c without overflow in between; c must not be 0.
std::int64_t mul_div(std::int64_t a, std::int64_t b, std::int64_t c) noexcept;

/// The binary logarithm of n in 1/65536, rounded down; n must not be 0.
std::uint32_t log2_q16(std::uint64_t n) noexcept;

} // namespace atlas
