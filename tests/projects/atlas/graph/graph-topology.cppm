export module atlas.graph:topology;

import std;
import :digraph;
import atlas.bits;
import atlas.error;

export namespace atlas {

/// All nodes, each after those it follows; an error names a node that is on a cycle or behind one.
Result<std::vector<Node>> order(const Digraph& graph);

/// How many edges the longest way to each node has. `order` is the graph's.
std::vector<std::size_t> levels(const Digraph& graph, std::span<const Node> order);

/// All that comes before each node, at whatever distance. `order` is the graph's.
std::vector<Bits> ancestors(const Digraph& graph, std::span<const Node> order);

} // namespace atlas
