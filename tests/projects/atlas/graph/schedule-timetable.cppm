export module atlas.schedule:timetable;

import std;
import atlas.graph;

export namespace atlas {

struct Slot {
    Node task;
    std::size_t machine;
    Cost from;
    Cost to;
};

/// What runs where and when, in the order of starting.
struct Timetable {
    std::size_t machines = 0;
    std::vector<Slot> slots;

    Cost length() const noexcept {
        Cost end = 0;
        for (const Slot& slot : slots) end = std::max(end, slot.to);
        return end;
    }

    Cost busy(std::size_t machine) const noexcept {
        Cost sum = 0;
        for (const Slot& slot : slots) sum += slot.machine == machine ? slot.to - slot.from : 0;
        return sum;
    }
};

} // namespace atlas
