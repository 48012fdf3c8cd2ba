// A text to count in: the beginning of Lewis Carroll's "Alice's Adventures in Wonderland" (1865), and the
// first and last verses of his "Jabberwocky" (1871). Both are in the public domain.
export module atlas.text.corpus;

import std;

export namespace atlas::text {

struct Piece {
    std::string_view title;
    std::string_view body;
};

std::span<const Piece> corpus() noexcept;

} // namespace atlas::text
