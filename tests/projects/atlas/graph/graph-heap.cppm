// A queue by cost. Internal: the interface does not show how paths are found.
module atlas.graph:heap;

import std;
import :digraph;
import :paths;

namespace atlas {

class Heap {
public:
    struct Entry {
        Cost cost;
        Node node;
        friend auto operator<=>(const Entry&, const Entry&) = default;
    };

    void push(Entry entry) {
        entries_.push_back(entry);
        std::ranges::push_heap(entries_, std::ranges::greater{});
    }

    /// The entry of least cost; of equals, the one of the lowest node.
    std::optional<Entry> pop() {
        if (entries_.empty()) return std::nullopt;
        std::ranges::pop_heap(entries_, std::ranges::greater{});
        const Entry least = entries_.back();
        entries_.pop_back();
        return least;
    }

private:
    std::vector<Entry> entries_;
};

} // namespace atlas
