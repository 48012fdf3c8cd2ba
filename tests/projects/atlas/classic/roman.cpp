#include "classic/roman.h"

namespace classic {

std::string roman(int number) {
    static const struct {
        int value;
        const char* numeral;
    } steps[] = {{1000, "M"}, {900, "CM"}, {500, "D"}, {400, "CD"}, {100, "C"}, {90, "XC"}, {50, "L"},
                 {40, "XL"},  {10, "X"},   {9, "IX"},  {5, "V"},    {4, "IV"},  {1, "I"}};
    std::string text;
    if (number < 1 || number > 3999) return text;
    for (const auto& step : steps) {
        for (; number >= step.value; number -= step.value) text += step.numeral;
    }
    return text;
}

} // namespace classic
