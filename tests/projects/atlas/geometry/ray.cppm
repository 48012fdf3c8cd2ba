export module atlas.ray;

import std;
export import atlas.vector;

export namespace atlas {

/// A half-line; the direction has length 1.
struct Ray {
    Vector from;
    Vector direction;

    constexpr Vector at(Fixed far) const noexcept { return from + direction * far; }
};

/// Where a ray meets a surface.
struct Hit {
    Fixed far;
    Vector normal;
};

/// Hits nearer than this are the surface the ray starts from.
inline constexpr Fixed nearest_hit = Fixed::ratio(1, 256);

} // namespace atlas
