export module atlas.shape:box;

import std;
export import atlas.ray;

export namespace atlas {

/// A box with sides along the axes.
struct Box {
    Vector low;
    Vector high;

    std::optional<Hit> meet(const Ray& ray) const noexcept;
};

} // namespace atlas
