export module atlas.shape:ball;

import std;
export import atlas.ray;

export namespace atlas {

struct Ball {
    Vector centre;
    Fixed radius;

    std::optional<Hit> meet(const Ray& ray) const noexcept;
};

} // namespace atlas
