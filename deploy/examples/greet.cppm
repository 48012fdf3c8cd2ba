module;

#include <cstdio>

export module greet;

export void greet(const char* whom) { std::printf("hello, %s\n", whom); }
