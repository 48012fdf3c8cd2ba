module;
#include <algorithm>
#include <vector>
export module account;
export import :entry;
export import :balance;
import date;

/// By date; what happened on one day stays in its order.
export void sort(std::vector<Entry>& entries) {
    auto earlier = [](const Entry& a, const Entry& b) { return a.date < b.date; };
    for (auto next = entries.begin(); next != entries.end(); ++next)
        std::rotate(std::upper_bound(entries.begin(), next, *next, earlier), next, next + 1);
}
