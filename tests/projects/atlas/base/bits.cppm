// A set of small numbers, as many as said when it is made.
export module atlas.bits;

import std;

export namespace atlas {

class Bits {
public:
    explicit Bits(std::size_t size) : words_((size + 63) / 64), size_(size) {}

    std::size_t size() const noexcept { return size_; }

    void insert(std::size_t member) { words_.at(member / 64) |= mask(member); }
    void erase(std::size_t member) { words_.at(member / 64) &= ~mask(member); }
    bool contains(std::size_t member) const { return (words_.at(member / 64) & mask(member)) != 0; }

    std::size_t count() const noexcept {
        std::size_t total = 0;
        for (const std::uint64_t word : words_) total += static_cast<std::size_t>(std::popcount(word));
        return total;
    }

    /// Takes in all members of another set of the same size.
    Bits& operator|=(const Bits& other) {
        for (const auto [mine, its] : std::views::zip(words_, other.words_)) mine |= its;
        return *this;
    }

private:
    static constexpr std::uint64_t mask(std::size_t member) noexcept { return std::uint64_t{1} << member % 64; }

    std::vector<std::uint64_t> words_;
    std::size_t size_;
};

} // namespace atlas
