// Tasks, what each costs, and what each waits for.
export module atlas.plan;

import std;
export import atlas.error;
export import atlas.graph;

export namespace atlas {

struct Plan {
    std::vector<std::string> names;
    std::vector<Cost> costs;
    Digraph graph;

    /// The sum of all costs.
    Cost work() const noexcept;
    std::optional<Node> find(std::string_view name) const noexcept;
};

/// A task a line: `name cost [name of an earlier task]...`. A line that starts with # says nothing.
Result<Plan> parse_plan(std::string_view text);

/// A made-up plan of `layers` layers of `width` tasks each, always the same for the same phrase.
Plan make_plan(std::string_view phrase, std::size_t layers, std::size_t width);

} // namespace atlas
