module atlas.schedule;

import atlas.bits;

namespace atlas {
namespace {

/// Tasks that may start now, the most urgent first.
class Ready {
public:
    explicit Ready(std::vector<Cost> urgency) : urgency_(std::move(urgency)) {}

    void add(Node task) { tasks_.insert({~urgency_[task], task}); }
    bool empty() const noexcept { return tasks_.empty(); }
    Node take() { return tasks_.extract(tasks_.begin()).value().second; }

private:
    std::vector<Cost> urgency_;
    std::set<std::pair<Cost, Node>> tasks_;
};

} // namespace

Result<Timetable> schedule(const Plan& plan, std::size_t machines) {
    auto ordered = order(plan.graph);
    if (!ordered) return std::unexpected(std::move(ordered).error());
    Timetable timetable{machines, {}};
    Ready ready(cost_to_end(plan.graph, *ordered, plan.costs));
    std::vector<std::size_t> missing(plan.graph.nodes());
    for (Node task = 0; task < missing.size(); ++task) {
        missing[task] = plan.graph.before(task).size();
        if (missing[task] == 0) ready.add(task);
    }
    std::set<std::size_t> idle(std::from_range, std::views::iota(0uz, machines));
    std::set<std::tuple<Cost, std::size_t, Node>> running;
    Cost now = 0;
    while (!ready.empty() || !running.empty()) {
        while (!ready.empty() && !idle.empty()) {
            const Node task = ready.take();
            const std::size_t machine = idle.extract(idle.begin()).value();
            timetable.slots.push_back({task, machine, now, now + plan.costs[task]});
            running.insert({now + plan.costs[task], machine, task});
        }
        const auto [end, machine, task] = running.extract(running.begin()).value();
        now = end;
        idle.insert(machine);
        for (const Node next : plan.graph.after(task)) {
            if (--missing[next] == 0) ready.add(next);
        }
    }
    return timetable;
}

Result<void> check(const Plan& plan, const Timetable& timetable) {
    Bits seen(plan.graph.nodes());
    std::vector<Cost> done(plan.graph.nodes());
    std::vector<Cost> free(timetable.machines);
    for (const Slot& slot : timetable.slots) {
        const std::string& name = plan.names.at(slot.task);
        if (seen.contains(slot.task)) return fail(name, "runs twice");
        if (slot.from < free.at(slot.machine)) return fail(name, "machine {} is busy", slot.machine);
        for (const Node before : plan.graph.before(slot.task)) {
            if (!seen.contains(before) || done[before] > slot.from) return fail(name, "starts too early");
        }
        seen.insert(slot.task);
        done[slot.task] = free[slot.machine] = slot.to;
    }
    if (seen.count() != plan.graph.nodes()) return fail("schedule", "{} tasks do not run", plan.graph.nodes() - seen.count());
    return {};
}

} // namespace atlas
