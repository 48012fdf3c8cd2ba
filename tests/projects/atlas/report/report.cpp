module atlas.report;

import atlas.checksum;

namespace atlas {

Report::Report(std::string_view title) : text_(std::format("{}\n{}\n", title, std::string(title.size(), '='))) {}

Report& Report::section(std::string_view title) {
    return add(std::format("\n{}. {}\n\n", roman(++sections_), title));
}

Report& Report::add(std::string_view text) {
    text_ += text;
    return *this;
}

Report& Report::add(const Table& table) { return add(table.text()); }

int Report::print() const {
    const Checksum sum = Checksum{}.add(text_);
    const std::string all = text_ + std::format("\nchecksum {:08x} ({})\n", sum.value(), sum.spoken());
    return std::cout << all << std::flush ? 0 : 1;
}

} // namespace atlas
