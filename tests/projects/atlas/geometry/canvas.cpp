module atlas.canvas;

namespace atlas {

Canvas::Canvas(int width, int height)
    : width_(width), height_(height), letters_(static_cast<std::size_t>(width * height), ' ') {}

void Canvas::put(int column, int row, char letter) noexcept {
    if (column < 0 || column >= width_ || row < 0 || row >= height_) return;
    letters_[static_cast<std::size_t>(row * width_ + column)] = letter;
}

std::size_t Canvas::count(char letter) const noexcept {
    return static_cast<std::size_t>(std::ranges::count(letters_, letter));
}

std::string Canvas::text() const {
    std::string text;
    const auto width = static_cast<std::size_t>(width_);
    for (std::size_t start = 0; start < letters_.size(); start += width) {
        const auto row = std::string_view(letters_).substr(start, width);
        text += row.substr(0, row.find_last_not_of(' ') + 1);
        text += '\n';
    }
    return text;
}

char tone(int brightness) noexcept {
    constexpr std::string_view letters = " .:-=+*#%@";
    static_assert(letters.size() == tones);
    return letters[static_cast<std::size_t>(std::clamp(brightness, 0, tones - 1))];
}

} // namespace atlas
