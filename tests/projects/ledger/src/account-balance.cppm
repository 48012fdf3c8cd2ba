module;
#include <map>
#include <string>
#include <vector>
export module account:balance;
import :entry;
import money;

/// What each account holds after these entries.
export std::map<std::string, Money> balances(const std::vector<Entry>& entries) {
    std::map<std::string, Money> sums;
    for (const Entry& entry : entries) sums[entry.account] = sums[entry.account] + entry.amount;
    return sums;
}
