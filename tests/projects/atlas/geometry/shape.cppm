// What stands in a scene.
export module atlas.shape;

import std;
export import :ball;
export import :box;
export import :floor;

export namespace atlas {

using Shape = std::variant<Ball, Box, Floor>;

/// The nearest hit in front of the ray.
inline std::optional<Hit> meet(const Shape& shape, const Ray& ray) noexcept {
    return std::visit([&](const auto& it) { return it.meet(ray); }, shape);
}

} // namespace atlas
