// Draws three things on a chequered floor.
import std;
import atlas.render;
import atlas.report;

using namespace atlas;

namespace {

Scene make_scene() {
    Scene scene({-3, 5, -2});
    scene.add({Floor{0}, Surface::chequered, Fixed::ratio(9, 10)})
        .add({Ball{{Fixed::ratio(-5, 2), Fixed::ratio(3, 2), 6}, Fixed::ratio(3, 2)}})
        .add({Ball{{Fixed::ratio(3, 2), 2, 9}, 2}, Surface::mirror, Fixed::ratio(9, 10)})
        .add({Box{{2, 0, 4}, {4, Fixed::ratio(3, 2), 6}}, Surface::plain, Fixed::ratio(4, 5)});
    return scene;
}

std::string histogram(const Canvas& canvas) {
    const auto all = static_cast<std::uint64_t>(canvas.width()) * static_cast<std::uint64_t>(canvas.height());
    Table table({{"tone"}, {"points", Align::right}, {"share", Align::right}});
    for (int brightness = 0; brightness < tones; ++brightness) {
        const char letter = tone(brightness);
        const auto points = canvas.count(letter);
        table.row({std::format("'{}'", letter), grouped(points), percent(points, all)});
    }
    return table.text();
}

} // namespace

int main() {
    Canvas canvas(96, 36);
    const Camera camera({0, 3, -5}, {0, Fixed::ratio(3, 2), 6}, Fixed::ratio(3, 2));
    const Effort effort = render(make_scene(), camera, canvas);

    Report report("Raycast");
    report.section("Picture").add(canvas.text());
    report.section("Tones").add(histogram(canvas));
    report.section("Rays");
    report.line("camera {}, shadow {}, mirror {}", grouped(effort.camera_rays), grouped(effort.shadow_rays),
                grouped(effort.mirror_rays));
    return report.print();
}
