export module Paint:Colour;
import std;

export namespace paint {

/// A colour as a letter, since terminals differ.
enum class Colour : char { none = '.', red = 'r', green = 'g', blue = 'b' };

/// What two colours on top of each other make.
constexpr Colour over(Colour below, Colour above) { return above == Colour::none ? below : above; }

} // namespace paint
