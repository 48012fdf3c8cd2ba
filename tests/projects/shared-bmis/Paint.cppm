export module Paint;
import std;
export import :Colour;
export import :Canvas;

export namespace paint {

using Picture = Canvas<Colour>;

/// Paints every cell for which `inside` holds.
void fill(Picture& picture, Colour colour, const std::function<bool(int, int)>& inside) {
    for (std::size_t y = 0; y < picture.height(); ++y)
        for (std::size_t x = 0; x < picture.width(); ++x)
            if (inside(static_cast<int>(x), static_cast<int>(y)))
                picture.at(x, y) = over(picture.at(x, y), colour);
}

std::string show(const Picture& picture) {
    std::string text;
    for (std::size_t y = 0; y < picture.height(); ++y, text += '\n')
        for (std::size_t x = 0; x < picture.width(); ++x) text += static_cast<char>(picture.at(x, y));
    return text;
}

} // namespace paint
