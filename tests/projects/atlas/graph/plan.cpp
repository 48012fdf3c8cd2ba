module;

#include "base/limits.h"

module atlas.plan;

import atlas.ints;
import atlas.random;
import atlas.text;

namespace atlas {
namespace {

std::optional<Cost> parse_cost(std::string_view text) {
    Cost cost{};
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), cost);
    if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
    return cost;
}

Node add_task(Plan& plan, std::string name, Cost cost) {
    plan.names.push_back(std::move(name));
    plan.costs.push_back(cost);
    return plan.graph.add_node();
}

Result<void> parse_task(Plan& plan, std::span<const std::string_view> fields, const std::string& where) {
    if (fields.size() < 2) return fail(where, "a task needs a name and a cost");
    if (plan.graph.nodes() == ATLAS_MAX_TASKS) return fail(where, "more than {} tasks", ATLAS_MAX_TASKS);
    if (plan.find(fields[0])) return fail(where, "a second task named {}", fields[0]);
    const auto cost = parse_cost(fields[1]);
    if (!cost) return fail(where, "{} is not a cost", fields[1]);
    if (!checked_add(plan.work(), *cost)) return fail(where, "the costs do not fit");
    std::vector<Node> waits_for;
    for (const std::string_view name : fields.subspan(2)) {
        const auto earlier = plan.find(name);
        if (!earlier) return fail(where, "no task named {} before this one", name);
        waits_for.push_back(*earlier);
    }
    const Node task = add_task(plan, std::string(fields[0]), *cost);
    for (const Node earlier : waits_for) plan.graph.add_edge(earlier, task);
    return {};
}

} // namespace

Cost Plan::work() const noexcept { return std::ranges::fold_left(costs, Cost{0}, std::plus{}); }

std::optional<Node> Plan::find(std::string_view name) const noexcept {
    const auto place = std::ranges::find(names, name);
    if (place == names.end()) return std::nullopt;
    return static_cast<Node>(place - names.begin());
}

Result<Plan> parse_plan(std::string_view text) {
    Plan plan;
    std::size_t number = 0;
    for (const std::string_view line : text::lines(text)) {
        ++number;
        const auto fields = text::fields(line);
        if (fields.empty() || fields[0].starts_with('#')) continue;
        if (auto parsed = parse_task(plan, fields, std::format("plan line {}", number)); !parsed) {
            return std::unexpected(std::move(parsed).error());
        }
    }
    return plan;
}

Plan make_plan(std::string_view phrase, std::size_t layers, std::size_t width) {
    Random random(phrase);
    Plan plan;
    std::vector<Node> above(width);
    std::ranges::iota(above, Node{0});
    for (std::size_t layer = 0; layer < layers; ++layer) {
        random.shuffle(above);
        std::vector<Node> tasks;
        for (std::size_t at = 0; at < width; ++at) {
            const Node task = add_task(plan, std::format("{}.{}", layer, at), 1 + random.below(99));
            tasks.push_back(task);
            if (layer == 0) continue;
            plan.graph.add_edge(above[at], task);
            for (std::size_t more = random.below(3); more > 0; --more) {
                const Node other = above[random.below(width)];
                if (other != above[at]) plan.graph.add_edge(other, task);
            }
        }
        above = tasks;
    }
    return plan;
}

} // namespace atlas
