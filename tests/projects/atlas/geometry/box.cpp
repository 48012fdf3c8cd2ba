module atlas.shape;

namespace atlas {
namespace {

struct Axis {
    Fixed Vector::* coordinate;
    Vector direction;
};

constexpr Axis axes[] = {{&Vector::x, {1, 0, 0}}, {&Vector::y, {0, 1, 0}}, {&Vector::z, {0, 0, 1}}};

} // namespace

// The ray is inside of the box where it is between all three pairs of planes.
std::optional<Hit> Box::meet(const Ray& ray) const noexcept {
    Fixed enters = -4000;
    Fixed leaves = 4000;
    Vector normal;
    for (const auto& [coordinate, axis] : axes) {
        const Fixed from = ray.from.*coordinate;
        const Fixed speed = ray.direction.*coordinate;
        if (speed == Fixed(0)) {
            if (from < low.*coordinate || from > high.*coordinate) return std::nullopt;
            continue;
        }
        Fixed first = (low.*coordinate - from) / speed;
        Fixed second = (high.*coordinate - from) / speed;
        Vector facing = -axis;
        if (first > second) {
            std::swap(first, second);
            facing = axis;
        }
        if (first > enters) {
            enters = first;
            normal = facing;
        }
        leaves = std::min(leaves, second);
    }
    if (enters > leaves || enters < nearest_hit) return std::nullopt;
    return Hit{enters, normal};
}

} // namespace atlas
