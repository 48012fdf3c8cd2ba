// Counts what is in the sample text.
import std;
import atlas.report;
import atlas.text;
import atlas.text.corpus;
import atlas.text.distance;
import atlas.text.entropy;
import atlas.text.frequency;
import atlas.text.stem;

using namespace atlas;
using namespace atlas::text;

namespace {

struct Counts {
    std::vector<std::string> words;
    Frequency by_word;
    Frequency by_stem;
    Frequency by_letter;
};

Counts count(std::string_view body) {
    Counts counts{words(body), {}, {}, {}};
    for (const std::string& word : counts.words) {
        counts.by_word.add(word);
        counts.by_stem.add(stem(word));
        for (const char letter : word) counts.by_letter.add(std::string_view(&letter, 1));
    }
    return counts;
}

void describe(Report& report, const Piece& piece) {
    const Counts counts = count(piece.body);
    const auto longest = std::ranges::max(counts.words, {}, &std::string::size);
    report.section(piece.title);
    report.add(Table({{"what"}, {"how much", Align::right}})
                   .row({"bytes", grouped(piece.body.size())})
                   .row({"characters", grouped(characters(piece.body))})
                   .row({"lines", grouped(lines(piece.body).size())})
                   .row({"sentences", grouped(sentences(piece.body).size())})
                   .row({"words", grouped(counts.words.size())})
                   .row({"distinct words", grouped(counts.by_word.distinct())})
                   .row({"distinct stems", grouped(counts.by_stem.distinct())})
                   .row({"longest word", longest})
                   .row({"bits a letter", decimal_q16(entropy_q16(counts.by_letter), 3)})
                   .row({"bits a word", decimal_q16(entropy_q16(counts.by_word), 3)}));
    report.add("\n");

    Table table({{"word"}, {"times", Align::right}, {"share", Align::right}, {"pair"}, {"times", Align::right}});
    const auto top = counts.by_word.most_frequent(8);
    const auto pairs = word_groups(counts.words, 2).most_frequent(8);
    for (const auto& [word, pair] : std::views::zip(top, pairs)) {
        table.row({word.what, grouped(word.times), percent(word.times, counts.by_word.total()), pair.what,
                   grouped(pair.times)});
    }
    report.add(table);
}

void correct(Report& report) {
    std::set<std::string> known;
    for (const Piece& piece : corpus()) known.insert_range(words(piece.body));
    report.section("Spelling");
    Table table({{"written"}, {"meant"}, {"letters apart", Align::right}});
    for (const std::string_view written : {"consevations", "jabberwok", "fourtunately", "rabit-hole", "chortle"}) {
        const std::string meant = nearest(written, known).value_or("?");
        table.row({std::string(written), meant, std::to_string(distance(written, meant))});
    }
    report.add(table);
}

} // namespace

int main() {
    Report report("Lexicon");
    for (const Piece& piece : corpus()) describe(report, piece);
    correct(report);
    return report.print();
}
