module;
#include <string>
export module account:entry;
import money;
import date;

/// One line of a ledger: an amount that goes to an account.
export struct Entry {
    Date date;
    std::string account;
    Money amount;
};
