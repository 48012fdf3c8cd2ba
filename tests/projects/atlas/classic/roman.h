#ifndef CLASSIC_ROMAN_H
#define CLASSIC_ROMAN_H

#include <string>

namespace classic {

/// A number from 1 to 3999 in roman numerals; empty for others.
std::string roman(int number);

} // namespace classic

#endif
