module atlas.ints;

namespace atlas {

std::uint64_t isqrt(std::uint64_t n) noexcept {
    // Two binary digits of n give one of the root.
    std::uint64_t root = 0;
    for (std::uint64_t bit = std::uint64_t{1} << 62; bit != 0; bit >>= 2) {
        if (n >= root + bit) {
            n -= root + bit;
            root = (root >> 1) + bit;
        } else {
            root >>= 1;
        }
    }
    return root;
}

std::int64_t mul_div(std::int64_t a, std::int64_t b, std::int64_t c) noexcept {
    return static_cast<std::int64_t>(static_cast<__int128>(a) * b / c);
}

std::uint32_t log2_q16(std::uint64_t n) noexcept {
    const int whole = std::bit_width(n) - 1;
    // The mantissa in [1, 2), 31 bits of fraction; squaring it shifts the next bit of the logarithm out.
    std::uint64_t mantissa = (n << (63 - whole)) >> 32;
    std::uint32_t fraction = 0;
    for (int bit = 15; bit >= 0; --bit) {
        mantissa = (mantissa * mantissa) >> 31;
        if (mantissa >= std::uint64_t{1} << 32) {
            mantissa >>= 1;
            fraction |= std::uint32_t{1} << bit;
        }
    }
    return static_cast<std::uint32_t>(whole) << 16 | fraction;
}

} // namespace atlas
