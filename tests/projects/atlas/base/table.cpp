module;

#include "base/limits.h"

module atlas.table;

namespace atlas {

std::string pad(std::string_view text, std::size_t width, Align align) {
    const std::size_t gap = width > text.size() ? width - text.size() : 0;
    switch (align) {
    case Align::left: return std::string(text) + std::string(gap, ' ');
    case Align::right: return std::string(gap, ' ') + std::string(text);
    }
    std::unreachable();
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {
    if (columns_.size() > ATLAS_MAX_COLUMNS) columns_.resize(ATLAS_MAX_COLUMNS);
}

Table& Table::row(std::vector<std::string> cells) {
    cells.resize(columns_.size());
    rows_.push_back(std::move(cells));
    return *this;
}

std::vector<std::size_t> Table::widths() const {
    std::vector<std::size_t> widths;
    for (const auto [index, column] : std::views::zip(std::views::iota(0uz), columns_)) {
        std::size_t width = column.title.size();
        for (const auto& cells : rows_) width = std::max(width, cells[index].size());
        widths.push_back(width);
    }
    return widths;
}

std::string Table::line(const std::vector<std::string>& cells, const std::vector<std::size_t>& widths) const {
    std::string text;
    for (const auto [cell, width, column] : std::views::zip(cells, widths, columns_)) {
        if (!text.empty()) text += "  ";
        text += pad(cell, width, column.align);
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text + "\n";
}

std::string Table::text() const {
    const auto widths = this->widths();
    std::vector<std::string> titles;
    std::vector<std::string> rules;
    for (const auto [column, width] : std::views::zip(columns_, widths)) {
        titles.push_back(column.title);
        rules.emplace_back(width, '-');
    }
    std::string text = line(titles, widths) + line(rules, widths);
    for (const auto& cells : rows_) text += line(cells, widths);
    return text;
}

} // namespace atlas
