module atlas.render;

import atlas.hash;

namespace atlas {
namespace {

constexpr int most_mirrors = 3;
constexpr Fixed ambient = Fixed::ratio(1, 8);

class Painter {
public:
    Painter(const Scene& scene, Effort& effort) : scene_(scene), effort_(effort) {}

    /// The brightness, from 0 to 1, of what a ray meets.
    Fixed brightness(const Ray& ray, int mirrors = 0) {
        const auto seen = scene_.look(ray);
        if (!seen) return sky(ray);
        const Vector point = ray.at(seen->hit.far);
        const Thing& thing = *seen->thing;
        if (thing.surface == Surface::mirror && mirrors < most_mirrors) {
            ++effort_.mirror_rays;
            const Vector normal = seen->hit.normal;
            const Vector back = ray.direction - normal * (dot(ray.direction, normal) * 2);
            return brightness({point, unit(back)}, mirrors + 1) * thing.brightness;
        }
        return lit(point, seen->hit.normal) * thing.brightness * pattern(thing, point);
    }

private:
    static Fixed sky(const Ray& ray) { return ray.direction.y > Fixed(0) ? ray.direction.y / 2 : Fixed(0); }

    static Fixed pattern(const Thing& thing, Vector point) {
        const bool dark = ((point.x.floor() + point.z.floor()) & 1) != 0;
        return thing.surface == Surface::chequered && dark ? Fixed::ratio(1, 4) : Fixed(1);
    }

    Fixed lit(Vector point, Vector normal) {
        const Fixed facing = dot(normal, scene_.towards_light());
        if (facing <= Fixed(0)) return ambient;
        ++effort_.shadow_rays;
        return scene_.shaded(point) ? ambient : ambient + facing * (Fixed(1) - ambient);
    }

    const Scene& scene_;
    Effort& effort_;
};

/// Rounds up or down by the place in the picture, so that a slope does not show as steps.
int dithered(Fixed brightness, int column, int row) {
    const auto noise = Hasher{}.add(static_cast<std::uint64_t>(column)).add(static_cast<std::uint64_t>(row)).value();
    const auto fraction = static_cast<std::int64_t>(noise >> (64 - Fixed::fraction_bits));
    return static_cast<int>((brightness * (tones - 1) + Fixed::from_raw(fraction)).floor());
}

} // namespace

Effort render(const Scene& scene, const Camera& camera, Canvas& canvas) {
    Effort effort;
    Painter painter(scene, effort);
    const int width = canvas.width();
    const int height = canvas.height();
    for (int row = 0; row < height; ++row) {
        for (int column = 0; column < width; ++column) {
            ++effort.camera_rays;
            const Fixed right = Fixed::ratio(2 * column + 1 - width, width);
            const Fixed up = Fixed::ratio((height - 2 * row - 1) * 2, width);
            const Fixed brightness = painter.brightness(camera.through(right, up));
            canvas.put(column, row, tone(dithered(brightness, column, row)));
        }
    }
    return effort;
}

} // namespace atlas
