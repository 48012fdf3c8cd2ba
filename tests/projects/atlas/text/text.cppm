// Text as characters, words, lines and sentences.
export module atlas.text;

export import :utf8;
export import :tokens;
export import :sentences;
