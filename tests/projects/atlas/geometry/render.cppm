// From a scene and a camera to a canvas.
export module atlas.render;

import std;
export import atlas.camera;
export import atlas.canvas;
export import atlas.scene;

export namespace atlas {

/// What it took.
struct Effort {
    std::uint64_t camera_rays = 0;
    std::uint64_t shadow_rays = 0;
    std::uint64_t mirror_rays = 0;
};

/// Draws all of the canvas. Letters are taken to be twice as high as wide.
Effort render(const Scene& scene, const Camera& camera, Canvas& canvas);

} // namespace atlas
