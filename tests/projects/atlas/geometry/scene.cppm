export module atlas.scene;

import std;
export import atlas.shape;

export namespace atlas {

enum class Surface { plain, chequered, mirror };

struct Thing {
    Shape shape;
    Surface surface = Surface::plain;
    Fixed brightness = 1;
};

struct Seen {
    const Thing* thing;
    Hit hit;
};

class Scene {
public:
    explicit Scene(Vector towards_light) noexcept : towards_light_(unit(towards_light)) {}

    Scene& add(Thing thing) {
        things_.push_back(std::move(thing));
        return *this;
    }

    Vector towards_light() const noexcept { return towards_light_; }

    /// What a ray meets first.
    std::optional<Seen> look(const Ray& ray) const noexcept;

    /// Whether something stands between a point and the light.
    bool shaded(Vector point) const noexcept;

private:
    std::vector<Thing> things_;
    Vector towards_light_;
};

} // namespace atlas
