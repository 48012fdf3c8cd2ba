// Numbers as people read them. `std.compat`, as this was written when `uint64_t` needed no `std::`.
module;

#include "classic/roman.h"

export module atlas.table:number;

import std.compat;

export namespace atlas {

/// 1234567 as 1 234 567.
inline std::string grouped(uint64_t number) {
    std::string digits = std::to_string(number);
    for (size_t at = digits.size(); at > 3; at -= 3) digits.insert(at - 3, 1, ' ');
    return digits;
}

/// A number of 1/65536 with so many decimals, rounded down.
inline std::string decimal_q16(uint64_t number, int decimals) {
    std::string text = std::to_string(number >> 16) + ".";
    uint64_t fraction = number & 0xFFFF;
    for (; decimals > 0; --decimals) {
        fraction *= 10;
        text += static_cast<char>('0' + (fraction >> 16));
        fraction &= 0xFFFF;
    }
    return text;
}

/// `part` of `whole` in percent with one decimal, rounded to the nearest.
inline std::string percent(uint64_t part, uint64_t whole) {
    if (whole == 0) return "-";
    const uint64_t tenths = (part * 2000 + whole) / (2 * whole);
    return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + "%";
}

inline std::string roman(int number) { return classic::roman(number); }

} // namespace atlas
