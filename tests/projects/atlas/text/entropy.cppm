// Shannon's entropy without floating point.
export module atlas.text.entropy;

import std;
import atlas.ints;
import atlas.text.frequency;

export namespace atlas::text {

/// The bits of information in each occurrence, in 1/65536; 0 when nothing was counted.
inline std::uint64_t entropy_q16(const Frequency& frequency) {
    const std::uint64_t total = frequency.total();
    if (total == 0) return 0;
    // The sum of p * log2(1 / p), times total.
    std::uint64_t sum = 0;
    const std::uint64_t whole = log2_q16(total);
    for (const std::uint64_t times : frequency.all() | std::views::values) {
        sum += times * (whole - log2_q16(times));
    }
    return sum / total;
}

} // namespace atlas::text
