// A picture out of letters.
export module atlas.canvas;

import std;

export namespace atlas {

class Canvas {
public:
    Canvas(int width, int height);

    int width() const noexcept { return width_; }
    int height() const noexcept { return height_; }

    /// Row 0 is the top one. Points outside are passed over.
    void put(int column, int row, char letter) noexcept;

    /// How many points have this letter.
    std::size_t count(char letter) const noexcept;

    /// The rows, without spaces at their ends, each ended with a newline.
    std::string text() const;

private:
    int width_;
    int height_;
    std::string letters_;
};

/// The letter for a brightness from 0 (black) to `tones - 1`.
inline constexpr int tones = 10;
char tone(int brightness) noexcept;

} // namespace atlas
