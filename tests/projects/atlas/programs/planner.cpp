// Schedules the build of this very project, and a larger one that is made up.
import std;
import atlas.bits;
import atlas.report;
import atlas.schedule;

using namespace atlas;

namespace {

// Modules with the time to compile each, in milliseconds as they might be, and what they import.
constexpr std::string_view build = R"(
std 3300
std.compat 350 std
ints 180 std
hash 160 std
error 240 std
bits 230 std
random 210 std hash
checksum 310 std
table 420 std std.compat
text 380 std
frequency 330 std
entropy 220 ints frequency
stem 170 std
distance 210 std
corpus 150 std
fixed 190 ints
vector 180 fixed
ray 170 vector
shape 390 ray
camera 180 ray
canvas 170 std
scene 260 shape
render 290 scene camera canvas hash
graph 540 bits error
plan 330 graph text random ints
schedule 450 plan
report 280 table checksum std.compat
# the programs
lexicon 620 report text corpus frequency entropy stem distance
raycast 410 report render
planner 530 report schedule
)";

void describe(Report& report, std::string_view title, const Plan& plan) {
    const auto ordered = order(plan.graph).value();
    const auto level = levels(plan.graph, ordered);
    const auto before = ancestors(plan.graph, ordered);
    const auto most = std::ranges::max_element(before, {}, &Bits::count);
    const Path critical = critical_path(plan.graph, ordered, plan.costs);

    report.section(title);
    report.line("{} tasks, {} edges, {} levels, work {}", plan.graph.nodes(), plan.graph.edges(),
                std::ranges::max(level) + 1, grouped(plan.work()));
    report.line("waits for most: {}, for {}", plan.names[static_cast<Node>(most - before.begin())], most->count());
    std::string way;
    for (const Node node : critical.nodes) way += (way.empty() ? "" : " > ") + plan.names[node];
    report.line("critical path: {}, {}\n", grouped(critical.cost), way);

    Table table({{"machines", Align::right}, {"length", Align::right}, {"faster", Align::right},
                 {"busy", Align::right}, {"as it must be"}});
    for (const std::size_t machines : {1, 2, 3, 4, 8, 16}) {
        const Timetable timetable = schedule(plan, machines).value();
        const Cost length = timetable.length();
        const auto checked = check(plan, timetable);
        table.row({std::to_string(machines), grouped(length), decimal_q16((plan.work() << 16) / length, 2) + "x",
                   percent(plan.work(), length * machines), checked ? "yes" : checked.error().text()});
    }
    report.add(table);
}

void show_two_machines(Report& report, const Plan& plan) {
    report.section("On two machines");
    Table table({{"from", Align::right}, {"to", Align::right}, {"first"}, {"second"}});
    for (const Slot& slot : schedule(plan, 2).value().slots) {
        std::vector<std::string> cells{grouped(slot.from), grouped(slot.to), "", ""};
        cells[2 + slot.machine] = plan.names[slot.task];
        table.row(std::move(cells));
    }
    report.add(table);
}

void show_errors(Report& report) {
    report.section("Plans that are none");
    for (const std::string_view text : {"a 1\nb 2 c\n", "a one\n", "a 1\na 2\n", "a\n", "a 1\nb 18446744073709551615\n"}) {
        const auto plan = parse_plan(text);
        report.line("{}", plan ? "taken" : plan.error().text());
    }
}

} // namespace

int main() {
    const auto plan = parse_plan(build);
    if (!plan) {
        std::println(std::cerr, "{}", plan.error().text());
        return 1;
    }
    Report report("Planner");
    describe(report, "This project", *plan);
    show_two_machines(report, *plan);
    describe(report, "A larger one", make_plan("jabberwocky", 24, 25));
    const auto cheapest = cheapest_path(plan->graph, plan->costs, *plan->find("std"), *plan->find("planner"));
    report.section("The cheapest way from std to planner");
    report.line("{}, over {} tasks", grouped(cheapest.value().cost), cheapest->nodes.size());
    show_errors(report);
    return report.print();
}
