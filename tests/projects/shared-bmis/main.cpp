import std;
import Paint;

int main() {
    paint::Picture picture(12, 6, paint::Colour::none);
    fill(picture, paint::Colour::blue, [](int, int y) { return y > 3; });
    fill(picture, paint::Colour::green, [](int x, int y) { return x + y < 4; });
    fill(picture, paint::Colour::red, [](int x, int y) { return (x - 8) * (x - 8) + (y - 2) * (y - 2) < 5; });
    std::print("{}", show(picture));
}
