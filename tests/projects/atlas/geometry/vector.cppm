export module atlas.vector;

import std;
export import atlas.fixed;

export namespace atlas {

struct Vector {
    Fixed x, y, z;

    friend constexpr bool operator==(const Vector&, const Vector&) noexcept = default;
    friend constexpr Vector operator-(Vector a) noexcept { return {-a.x, -a.y, -a.z}; }
    friend constexpr Vector operator+(Vector a, Vector b) noexcept { return {a.x + b.x, a.y + b.y, a.z + b.z}; }
    friend constexpr Vector operator-(Vector a, Vector b) noexcept { return {a.x - b.x, a.y - b.y, a.z - b.z}; }
    friend constexpr Vector operator*(Vector a, Fixed by) noexcept { return {a.x * by, a.y * by, a.z * by}; }
    friend constexpr Vector operator/(Vector a, Fixed by) noexcept { return {a.x / by, a.y / by, a.z / by}; }
};

constexpr Fixed dot(Vector a, Vector b) noexcept { return a.x * b.x + a.y * b.y + a.z * b.z; }

constexpr Vector cross(Vector a, Vector b) noexcept {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}

inline Fixed length(Vector a) noexcept { return sqrt(dot(a, a)); }

/// The same direction with length 1; a vector of length 0 stays as it is.
inline Vector unit(Vector a) noexcept {
    const Fixed size = length(a);
    return size == Fixed(0) ? a : a / size;
}

static_assert(cross({1, 0, 0}, {0, 1, 0}) == Vector{0, 0, 1});
static_assert(dot({1, 2, 3}, {4, 5, 6}) == Fixed(32));

} // namespace atlas
