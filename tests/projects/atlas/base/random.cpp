module atlas.random;

import atlas.hash;

namespace atlas {
namespace {

std::uint64_t splitmix(std::uint64_t& state) noexcept {
    std::uint64_t z = state += 0x9e3779b97f4a7c15;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}

} // namespace

Random::Random(std::uint64_t seed) noexcept {
    for (auto& word : state_) word = splitmix(seed);
}

Random::Random(std::string_view phrase) noexcept : Random(hash(phrase)) {}

std::uint64_t Random::next() noexcept {
    auto& [a, b, c, d] = state_;
    const std::uint64_t result = std::rotl(b * 5, 7) * 9;
    const std::uint64_t shifted = b << 17;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= shifted;
    d = std::rotl(d, 45);
    return result;
}

std::uint64_t Random::below(std::uint64_t n) noexcept {
    // The numbers under the threshold would make some remainders likelier than others.
    const std::uint64_t threshold = -n % n;
    for (;;) {
        const std::uint64_t number = next();
        if (number >= threshold) return number % n;
    }
}

} // namespace atlas
