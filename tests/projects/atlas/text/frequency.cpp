module atlas.text.frequency;

namespace atlas::text {

void Frequency::add(std::string_view what, std::uint64_t times) {
    const auto place = times_.find(what);
    if (place == times_.end()) {
        times_.emplace(what, times);
    } else {
        place->second += times;
    }
    total_ += times;
}

std::vector<Counted> Frequency::most_frequent(std::size_t how_many) const {
    std::vector<Counted> counted;
    for (const auto& [what, times] : times_) counted.push_back({what, times});
    // The map is in alphabetical order, and a stable sort keeps that among equals.
    std::ranges::stable_sort(counted, std::ranges::greater{}, &Counted::times);
    counted.resize(std::min(how_many, counted.size()));
    return counted;
}

Frequency word_groups(std::span<const std::string> words, std::size_t size) {
    Frequency groups;
    for (std::size_t at = 0; at + size <= words.size(); ++at) {
        std::string group;
        for (const auto& word : words.subspan(at, size)) group += (group.empty() ? "" : " ") + word;
        groups.add(group);
    }
    return groups;
}

} // namespace atlas::text
