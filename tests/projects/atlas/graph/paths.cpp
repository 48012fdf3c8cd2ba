module atlas.graph;

import std;
import :heap;

namespace atlas {

std::vector<Cost> cost_to_end(const Digraph& graph, std::span<const Node> order, std::span<const Cost> costs) {
    std::vector<Cost> total(graph.nodes());
    for (const Node node : order | std::views::reverse) {
        Cost rest = 0;
        for (const Node next : graph.after(node)) rest = std::max(rest, total[next]);
        total[node] = costs[node] + rest;
    }
    return total;
}

Path critical_path(const Digraph& graph, std::span<const Node> order, std::span<const Cost> costs) {
    if (graph.nodes() == 0) return {};
    const auto total = cost_to_end(graph, order, costs);
    const auto dearest = [&](const auto& nodes) {
        return *std::ranges::max_element(nodes, {}, [&](Node node) { return std::pair(total[node], ~node); });
    };
    Path path;
    Node node = dearest(std::views::iota(Node{0}, graph.nodes()));
    path.cost = total[node];
    path.nodes.push_back(node);
    while (!graph.after(node).empty()) {
        node = dearest(graph.after(node));
        path.nodes.push_back(node);
    }
    return path;
}

std::optional<Path> cheapest_path(const Digraph& graph, std::span<const Cost> costs, Node from, Node to) {
    std::vector<std::optional<Cost>> known(graph.nodes());
    std::vector<Node> came_from(graph.nodes(), from);
    Heap heap;
    known.at(from) = costs[from];
    heap.push({costs[from], from});
    while (const auto least = heap.pop()) {
        if (least->node == to) break;
        if (least->cost > *known[least->node]) continue;
        for (const Node next : graph.after(least->node)) {
            const Cost cost = least->cost + costs[next];
            if (known[next] && *known[next] <= cost) continue;
            known[next] = cost;
            came_from[next] = least->node;
            heap.push({cost, next});
        }
    }
    if (!known.at(to)) return std::nullopt;
    Path path{{to}, *known[to]};
    while (path.nodes.back() != from) path.nodes.push_back(came_from[path.nodes.back()]);
    std::ranges::reverse(path.nodes);
    return path;
}

} // namespace atlas
