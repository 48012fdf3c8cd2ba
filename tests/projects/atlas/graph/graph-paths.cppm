export module atlas.graph:paths;

import std;
import :digraph;

export namespace atlas {

using Cost = std::uint64_t;

struct Path {
    std::vector<Node> nodes;
    Cost cost = 0;
};

/// For each node, the cost of the dearest way from it to an end, its own included. `order` is the graph's.
std::vector<Cost> cost_to_end(const Digraph& graph, std::span<const Node> order, std::span<const Cost> costs);

/// The dearest way through the graph: no schedule is shorter. Of equals, the one over the lowest nodes.
Path critical_path(const Digraph& graph, std::span<const Node> order, std::span<const Cost> costs);

/// The cheapest way from one node to another, both included; nothing where there is none.
std::optional<Path> cheapest_path(const Digraph& graph, std::span<const Cost> costs, Node from, Node to);

} // namespace atlas
