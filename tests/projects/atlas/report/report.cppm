// How the programs print: numbered sections, and a checksum of all of it at the end.
export module atlas.report;

import std;
export import atlas.table;

export namespace atlas {

class Report {
public:
    explicit Report(std::string_view title);

    Report& section(std::string_view title);
    Report& add(std::string_view text);
    Report& add(const Table& table);

    /// `add(std::format(...) + '\n')`.
    template <class... Args>
    Report& line(std::format_string<Args...> format, Args&&... args) {
        return add(std::format(format, std::forward<Args>(args)...) + '\n');
    }

    /// Prints it to standard output. The exit status of a program: 0 if all could be written.
    int print() const;

private:
    std::string text_;
    int sections_ = 0;
};

} // namespace atlas
