module;
#include <cstdio>
#include <string>
#include "limits.h"
export module money;

/// An amount in cents.
export struct Money {
    long long cents = 0;

    friend Money operator+(Money a, Money b) { return {a.cents + b.cents}; }
    friend Money operator-(Money a) { return {-a.cents}; }
    friend bool operator==(Money, Money) = default;
    friend auto operator<=>(Money, Money) = default;
};

export bool is_sane(Money amount) { return amount.cents < MOST_CENTS && -amount.cents < MOST_CENTS; }

export std::string text(Money amount) {
    long long whole = amount.cents < 0 ? -amount.cents : amount.cents;
    char buffer[64];
    std::snprintf(buffer, sizeof buffer, "%s%lld.%02lld", amount.cents < 0 ? "-" : "", whole / 100, whole % 100);
    return buffer;
}
