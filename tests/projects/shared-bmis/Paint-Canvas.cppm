export module Paint:Canvas;
import std;

export namespace paint {

/// A grid of cells, each with a value.
template <typename Cell>
class Canvas {
public:
    Canvas(std::size_t width, std::size_t height, Cell empty) : width_(width), cells_(width * height, empty) {}

    std::size_t width() const { return width_; }
    std::size_t height() const { return cells_.size() / width_; }
    Cell& at(std::size_t x, std::size_t y) { return cells_.at(y * width_ + x); }
    const Cell& at(std::size_t x, std::size_t y) const { return cells_.at(y * width_ + x); }

private:
    std::size_t width_;
    std::vector<Cell> cells_;
};

} // namespace paint
