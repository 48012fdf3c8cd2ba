module;
#include <ostream>
#include <vector>
export module report;
import account;
import money;
import date;

export void report(std::ostream& out, const std::vector<Entry>& entries) {
    for (const Entry& entry : entries) out << text(entry.date) << ' ' << entry.account << ' ' << text(entry.amount) << '\n';
    out << "--\n";
    for (const auto& [account, sum] : balances(entries)) out << account << ' ' << text(sum) << '\n';
}
