// xoshiro256**: the same numbers from the same seed on every machine, which std's distributions do not promise.
export module atlas.random;

import std;

export namespace atlas {

class Random {
public:
    explicit Random(std::uint64_t seed) noexcept;
    /// A generator whose seed is a phrase.
    explicit Random(std::string_view phrase) noexcept;

    std::uint64_t next() noexcept;

    /// A number from 0 to n - 1, each as likely; n must not be 0.
    std::uint64_t below(std::uint64_t n) noexcept;

    template <std::ranges::random_access_range R>
    void shuffle(R&& range) noexcept {
        for (auto left = std::ranges::size(range); left > 1; --left) {
            std::ranges::swap(range[left - 1], range[below(left)]);
        }
    }

private:
    std::array<std::uint64_t, 4> state_;
};

} // namespace atlas
