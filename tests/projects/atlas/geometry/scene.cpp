module atlas.scene;

namespace atlas {

std::optional<Seen> Scene::look(const Ray& ray) const noexcept {
    std::optional<Seen> first;
    for (const Thing& thing : things_) {
        const auto hit = meet(thing.shape, ray);
        if (hit && (!first || hit->far < first->hit.far)) first = Seen{&thing, *hit};
    }
    return first;
}

bool Scene::shaded(Vector point) const noexcept {
    const Ray ray{point, towards_light_};
    return std::ranges::any_of(things_, [&](const Thing& thing) { return meet(thing.shape, ray).has_value(); });
}

} // namespace atlas
