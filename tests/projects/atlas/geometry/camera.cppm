export module atlas.camera;

import std;
export import atlas.ray;

export namespace atlas {

/// Looks from one point at another; `zoom` is how far the picture plane is in front of it.
class Camera {
public:
    Camera(Vector from, Vector at, Fixed zoom) noexcept;

    /// The ray through a point of the picture: `right` and `up` are 0 in the middle and 1 at the edge.
    Ray through(Fixed right, Fixed up) const noexcept;

private:
    Vector from_;
    Vector forward_;
    Vector right_;
    Vector up_;
};

} // namespace atlas
