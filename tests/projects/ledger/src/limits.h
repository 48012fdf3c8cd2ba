#pragma once
#define MOST_CENTS 1'000'000'000'000LL
