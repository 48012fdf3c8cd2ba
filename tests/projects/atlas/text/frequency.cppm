// How often each thing occurs.
export module atlas.text.frequency;

import std;

export namespace atlas::text {

struct Counted {
    std::string what;
    std::uint64_t times;
};

class Frequency {
public:
    void add(std::string_view what, std::uint64_t times = 1);

    std::uint64_t total() const noexcept { return total_; }
    std::size_t distinct() const noexcept { return times_.size(); }
    const std::map<std::string, std::uint64_t, std::less<>>& all() const noexcept { return times_; }

    /// The most frequent ones; of equals, the first by the alphabet.
    std::vector<Counted> most_frequent(std::size_t how_many) const;

private:
    std::map<std::string, std::uint64_t, std::less<>> times_;
    std::uint64_t total_ = 0;
};

/// The frequency of `size` words in a row.
Frequency word_groups(std::span<const std::string> words, std::size_t size);

} // namespace atlas::text
