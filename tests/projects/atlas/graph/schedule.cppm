// Who does what when.
export module atlas.schedule;

import std;
export import atlas.plan;
export import :timetable;

export namespace atlas {

/// A schedule on so many machines (at least one): whoever is free takes the task that is ready and has the
/// dearest way still to go. At most twice as long as the best one.
Result<Timetable> schedule(const Plan& plan, std::size_t machines);

/// An error unless each task runs once, after what it waits for, on a machine that does nothing else meanwhile.
Result<void> check(const Plan& plan, const Timetable& timetable);

} // namespace atlas
