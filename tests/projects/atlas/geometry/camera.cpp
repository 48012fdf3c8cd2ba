module atlas.camera;

namespace atlas {

Camera::Camera(Vector from, Vector at, Fixed zoom) noexcept
    : from_(from), forward_(unit(at - from)), right_(unit(cross({0, 1, 0}, forward_))),
      up_(cross(forward_, right_)) {
    forward_ = forward_ * zoom;
}

Ray Camera::through(Fixed right, Fixed up) const noexcept {
    return {from_, unit(forward_ + right_ * right + up_ * up)};
}

} // namespace atlas
