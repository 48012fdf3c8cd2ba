module;
#include <istream>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
export module parser;
export import account;
import money;
import date;

std::optional<Money> read_money(std::string_view text);
std::optional<Date> read_date(std::string_view text);

/// Reads lines `YEAR-MONTH-DAY ACCOUNT AMOUNT`; what is none is passed over.
export std::vector<Entry> read(std::istream& in) {
    std::vector<Entry> entries;
    for (std::string date, account, amount; in >> date >> account >> amount;) {
        auto day = read_date(date);
        auto money = read_money(amount);
        if (day && money && is_sane(*money)) entries.push_back({*day, account, *money});
    }
    return entries;
}
