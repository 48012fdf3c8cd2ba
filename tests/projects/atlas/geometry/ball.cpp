module atlas.shape;

namespace atlas {

std::optional<Hit> Ball::meet(const Ray& ray) const noexcept {
    const Vector towards = centre - ray.from;
    const Fixed middle = dot(towards, ray.direction);
    const Fixed under_root = middle * middle - dot(towards, towards) + radius * radius;
    if (under_root < Fixed(0)) return std::nullopt;
    const Fixed half = sqrt(under_root);
    for (const Fixed far : {middle - half, middle + half}) {
        if (far >= nearest_hit) return Hit{far, unit(ray.at(far) - centre)};
    }
    return std::nullopt;
}

} // namespace atlas
