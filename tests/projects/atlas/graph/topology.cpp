module atlas.graph;

import std;
import atlas.bits;
import atlas.error;

namespace atlas {

Result<std::vector<Node>> order(const Digraph& graph) {
    std::vector<std::size_t> missing(graph.nodes());
    std::vector<Node> ordered;
    for (Node node = 0; node < graph.nodes(); ++node) {
        missing[node] = graph.before(node).size();
        if (missing[node] == 0) ordered.push_back(node);
    }
    for (std::size_t at = 0; at < ordered.size(); ++at) {
        for (const Node next : graph.after(ordered[at])) {
            if (--missing[next] == 0) ordered.push_back(next);
        }
    }
    if (ordered.size() < graph.nodes()) {
        const auto stuck = std::ranges::find_if(missing, [](std::size_t count) { return count > 0; });
        return fail("graph", "node {} cannot be ordered", stuck - missing.begin());
    }
    return ordered;
}

std::vector<std::size_t> levels(const Digraph& graph, std::span<const Node> order) {
    std::vector<std::size_t> level(graph.nodes());
    for (const Node node : order) {
        for (const Node next : graph.after(node)) level[next] = std::max(level[next], level[node] + 1);
    }
    return level;
}

std::vector<Bits> ancestors(const Digraph& graph, std::span<const Node> order) {
    std::vector<Bits> sets(graph.nodes(), Bits(graph.nodes()));
    for (const Node node : order) {
        for (const Node before : graph.before(node)) {
            sets[node] |= sets[before];
            sets[node].insert(before);
        }
    }
    return sets;
}

} // namespace atlas
