export module atlas.shape:floor;

import std;
export import atlas.ray;

export namespace atlas {

/// All points of one height, seen from above.
struct Floor {
    Fixed height;

    std::optional<Hit> meet(const Ray& ray) const noexcept {
        // A ray that falls this little meets it so far away that numbers overflow.
        if (ray.direction.y > -Fixed::ratio(1, 512)) return std::nullopt;
        const Fixed far = (height - ray.from.y) / ray.direction.y;
        if (far < nearest_hit) return std::nullopt;
        return Hit{far, {0, 1, 0}};
    }
};

} // namespace atlas
