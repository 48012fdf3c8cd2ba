//! The make rules that Clang writes: read, and written again without the BMIs we made it list.
//!
//! Nothing is trusted that was not understood: a depfile is read only if writing it again gives the same bytes.

/// Where Clang breaks a line.
const MAX_COLUMNS: usize = 75;

/// A depfile of one target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rules {
    /// The target as it stands in the file, quoted as it is.
    target: String,
    /// What was read, the source first.
    pub files: Vec<String>,
    /// Whether each file but the first has an empty rule.
    phony: bool,
}

impl Rules {
    /// Reads a depfile that Clang wrote, or `None` if it is not understood to the last byte.
    pub fn parse(text: &str) -> Option<Self> {
        let (target, rest) = text.split_once(':')?;
        // The rule ends with the first line that does not go on in the next.
        let end =
            rest.match_indices('\n').find(|(at, _)| !rest.get(..*at).unwrap_or_default().ends_with('\\'))?.0
                + 1;
        let (first, phony) = rest.split_at_checked(end)?;
        let rules = Self { target: target.to_owned(), files: split_files(first), phony: !phony.is_empty() };
        (rules.text() == text).then_some(rules)
    }

    /// The same rules without some of the files.
    pub fn without(mut self, is_dropped: impl Fn(&str) -> bool) -> Self {
        self.files.retain(|file| !is_dropped(file));
        self
    }

    /// The same rules with every name, the target's too, spelled by `spell`.
    pub fn spelled(mut self, spell: impl Fn(&str) -> String) -> Self {
        self.target = self.target.split(' ').map(&spell).collect::<Vec<_>>().join(" ");
        self.files = self.files.iter().map(|file| spell(file)).collect();
        self
    }

    /// The bytes Clang would write.
    pub fn text(&self) -> String {
        let mut text = format!("{}:", self.target);
        let mut columns = text.len();
        for file in &self.files {
            if columns + file.len() + 1 + 2 > MAX_COLUMNS {
                text.push_str(" \\\n ");
                columns = 2;
            }
            text.push(' ');
            quote(file, &mut text);
            columns += file.len() + 1;
        }
        text.push('\n');
        if self.phony {
            for file in self.files.iter().skip(1) {
                quote(file, &mut text);
                text.push_str(":\n");
            }
        }
        text
    }
}

/// The files in the rules of any compiler: what stands behind the first rule's target. What it means to make is not
/// looked at closer, so nothing is written again.
pub fn files_in_rules(text: &str) -> Option<Vec<String>> {
    let mut at = 0;
    // The target ends with a colon that white space follows.
    let colon = loop {
        let colon = at + text.get(at..)?.find(':')?;
        if text.get(colon + 1..)?.starts_with([' ', '\n', '\\']) {
            break colon;
        }
        at = colon + 1;
    };
    let rest = text.get(colon + 1..)?;
    let end =
        rest.match_indices('\n').find(|(at, _)| !rest.get(..*at).unwrap_or_default().ends_with('\\'))?.0;
    Some(split_files(rest.get(..=end)?))
}

fn quote(file: &str, text: &mut String) {
    for c in file.chars() {
        match c {
            ' ' | '#' => text.push('\\'),
            '$' => text.push('$'),
            _ => {}
        }
        text.push(c);
    }
}

fn split_files(rule: &str) -> Vec<String> {
    let mut files = Vec::new();
    let mut file = String::new();
    let mut chars = rule.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(' ' | '#')) | ('$', Some('$')) => file.extend(chars.next()),
            ('\\', Some('\n')) | (' ' | '\n', _) => {
                if !file.is_empty() {
                    files.push(std::mem::take(&mut file));
                }
            }
            (plain, _) => file.push(plain),
        }
    }
    files
}

/// The files named in a graph that Clang wrote for `-dependency-dot`: it lists system headers without changing
/// what `-MMD` lists. Names that begin with the system's root, a slash where none is given, have lost it: so of each the
/// two names that it may have. `None` if a name holds what the graph escapes.
pub fn files_in_graph(text: &str, root: &str) -> Option<Vec<[String; 2]>> {
    let labels = text.lines().filter_map(|line| line.split_once("[ shape=\"box\", label=\""));
    let name = |(_, label): (&str, &str)| {
        let name = label.strip_suffix("\"];").filter(|name| !name.contains('\\'))?;
        Some([name.to_owned(), format!("{root}{name}")])
    };
    labels.map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITTEN: &str = "m.o: m.cpp sp\\ ace/h.h \\\n  /usr/lib/gcc/x86_64-linux-gnu/12/../../../../include/c++/12/vector \\\n  /usr/include/features.h /usr/include/features-time64.h p/a.pcm\n";

    #[test]
    fn what_clang_wrote_is_read_and_written_again() {
        let rules = Rules::parse(WRITTEN).unwrap();
        assert_eq!(rules.files.len(), 6);
        assert_eq!(rules.files[1], "sp ace/h.h");
        assert_eq!(rules.text(), WRITTEN);
    }

    #[test]
    fn a_file_can_be_taken_out() {
        let rules = Rules::parse(WRITTEN).unwrap().without(|file| file.ends_with(".pcm"));
        assert_eq!(rules.text(), WRITTEN.replace(" p/a.pcm", ""));
        let alone =
            "b.pcm: b.cppm \\\n  /a/very/long/name/of/a/directory/that/does/not/fit/in/the/line/p/a.pcm\n";
        assert_eq!(Rules::parse(alone).unwrap().without(|f| f.ends_with(".pcm")).text(), "b.pcm: b.cppm\n");
    }

    #[test]
    fn empty_rules_are_kept() {
        let written = "m.o: m.cpp a.h b.h\na.h:\nb.h:\n";
        let rules = Rules::parse(written).unwrap();
        assert_eq!(rules.text(), written);
        assert_eq!(rules.without(|file| file == "a.h").text(), "m.o: m.cpp b.h\nb.h:\n");
    }

    #[test]
    fn what_is_not_understood_is_not_read() {
        for text in
            ["", "m.o m.cpp\n", "m.o:  m.cpp\n", "m.o: m.cpp", "m.o: m.cpp\nother.h:\n", "a: b\nc: d\n"]
        {
            assert_eq!(Rules::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_graph_names_its_files_with_and_without_the_root() {
        let text = "digraph \"dependencies\" {\n  header_1 [ shape=\"box\", label=\"usr/include/stdio.h\"];\n  header_0 -> header_1;\n}\n";
        let names = ["usr/include/stdio.h", "/usr/include/stdio.h"].map(str::to_owned);
        assert_eq!(files_in_graph(text, "/").unwrap(), [names]);
        let text = "  h [ shape=\"box\", label=\"/usr/x.h\"];\n";
        assert_eq!(
            files_in_graph(text, "/root").unwrap(),
            [["/usr/x.h", "/root/usr/x.h"].map(str::to_owned)]
        );
        assert_eq!(files_in_graph("  h [ shape=\"box\", label=\"a\\\"b\"];\n", "/"), None);
    }
}
