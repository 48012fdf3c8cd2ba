export module atlas.graph:digraph;

import std;

export namespace atlas {

/// A node is its place in the order of adding.
using Node = std::size_t;

class Digraph {
public:
    Node add_node() {
        after_.emplace_back();
        before_.emplace_back();
        return after_.size() - 1;
    }

    void add_edge(Node from, Node to) {
        after_.at(from).push_back(to);
        before_.at(to).push_back(from);
        ++edges_;
    }

    std::size_t nodes() const noexcept { return after_.size(); }
    std::size_t edges() const noexcept { return edges_; }
    std::span<const Node> after(Node node) const { return after_.at(node); }
    std::span<const Node> before(Node node) const { return before_.at(node); }

private:
    std::vector<std::vector<Node>> after_;
    std::vector<std::vector<Node>> before_;
    std::size_t edges_ = 0;
};

} // namespace atlas
