// Fixed-point numbers: the same picture on every machine. Values up to some thousands; more may overflow.
export module atlas.fixed;

import std;
import atlas.ints;

export namespace atlas {

class Fixed {
public:
    static constexpr int fraction_bits = 20;

    constexpr Fixed() noexcept = default;
    constexpr Fixed(int whole) noexcept : raw_(static_cast<std::int64_t>(whole) << fraction_bits) {}

    static constexpr Fixed from_raw(std::int64_t raw) noexcept {
        Fixed number;
        number.raw_ = raw;
        return number;
    }
    static constexpr Fixed ratio(int numerator, int denominator) noexcept {
        return Fixed(numerator) / Fixed(denominator);
    }

    constexpr std::int64_t raw() const noexcept { return raw_; }
    constexpr std::int64_t floor() const noexcept { return raw_ >> fraction_bits; }

    friend constexpr auto operator<=>(Fixed, Fixed) noexcept = default;
    friend constexpr Fixed operator-(Fixed a) noexcept { return from_raw(-a.raw_); }
    friend constexpr Fixed operator+(Fixed a, Fixed b) noexcept { return from_raw(a.raw_ + b.raw_); }
    friend constexpr Fixed operator-(Fixed a, Fixed b) noexcept { return from_raw(a.raw_ - b.raw_); }
    friend constexpr Fixed operator*(Fixed a, Fixed b) noexcept {
        return from_raw((a.raw_ * b.raw_) >> fraction_bits);
    }
    /// b must not be 0.
    friend constexpr Fixed operator/(Fixed a, Fixed b) noexcept {
        return from_raw((a.raw_ * (std::int64_t{1} << fraction_bits)) / b.raw_);
    }

private:
    std::int64_t raw_ = 0;
};

/// The square root, rounded down; 0 for what is negative.
inline Fixed sqrt(Fixed number) noexcept {
    if (number.raw() <= 0) return {};
    const auto scaled = static_cast<std::uint64_t>(number.raw()) << Fixed::fraction_bits;
    return Fixed::from_raw(static_cast<std::int64_t>(isqrt(scaled)));
}

} // namespace atlas
