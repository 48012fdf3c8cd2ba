module;
#include <charconv>
#include <optional>
#include <string_view>
module parser;
import money;
import date;

namespace {

std::optional<int> number(std::string_view text) {
    int value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return value;
}

} // namespace

std::optional<Money> read_money(std::string_view text) {
    bool negative = text.starts_with('-');
    auto point = text.find('.');
    if (point == text.npos || point + 3 != text.size()) return std::nullopt;
    auto whole = number(text.substr(negative, point - negative));
    auto cents = number(text.substr(point + 1));
    if (!whole || !cents) return std::nullopt;
    long long sum = *whole * 100LL + *cents;
    return Money{negative ? -sum : sum};
}

std::optional<Date> read_date(std::string_view text) {
    if (text.size() != 10 || text[4] != '-' || text[7] != '-') return std::nullopt;
    auto year = number(text.substr(0, 4)), month = number(text.substr(5, 2)), day = number(text.substr(8, 2));
    if (!year || !month || !day) return std::nullopt;
    return Date{*year, *month, *day};
}
