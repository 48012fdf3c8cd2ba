// Tables of text: columns as wide as what is in them.
export module atlas.table;

import std;
export import :cell;
export import :number;

export namespace atlas {

struct Column {
    std::string title;
    Align align = Align::left;
};

class Table {
public:
    /// Columns beyond ATLAS_MAX_COLUMNS are left out.
    explicit Table(std::vector<Column> columns);

    /// Cells that are missing are empty, cells without a column are left out.
    Table& row(std::vector<std::string> cells);

    /// The table, each line ended with a newline.
    std::string text() const;

private:
    std::vector<std::size_t> widths() const;
    std::string line(const std::vector<std::string>& cells, const std::vector<std::size_t>& widths) const;

    std::vector<Column> columns_;
    std::vector<std::vector<std::string>> rows_;
};

} // namespace atlas
