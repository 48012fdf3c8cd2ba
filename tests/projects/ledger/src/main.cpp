#include <iostream>
import parser;
import report;

int main() {
    auto entries = read(std::cin);
    sort(entries);
    report(std::cout, entries);
}
