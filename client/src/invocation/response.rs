//! Response files: `@FILE` on a command line, split as the compiler splits them.

use crate::invocation::Bypass;

/// The largest response file anyone reads, in bytes.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Splits a response file by GNU rules: white space separates, a backslash takes the next character as it is,
/// quotes of either kind hold a word together (and a backslash works inside of them as well).
pub fn split(text: &str) -> Result<Vec<String>, Bypass> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            ' ' | '\t' | '\r' | '\n' | '\x0b' | '\x0c' => words.extend(word.take()),
            '\\' => match chars.next() {
                Some(next) => word.get_or_insert_default().push(next),
                None => word.get_or_insert_default().push('\\'),
            },
            '"' | '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err(Bypass::new("response-file", "a quote does not end")),
                        Some(end) if end == c => break,
                        Some('\\') => word.extend(chars.next()),
                        Some(inner) => word.push(inner),
                    }
                }
            }
            plain => word.get_or_insert_default().push(plain),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_cmake_writes_them() {
        let text = "-x c++-module\n-fmodule-output=\"CMakeFiles/m.dir/m.pcm\"\n-fmodule-file=\"std=CMake Files/std.pcm\"\n";
        let words = split(text).unwrap();
        assert_eq!(
            words,
            [
                "-x",
                "c++-module",
                "-fmodule-output=CMakeFiles/m.dir/m.pcm",
                "-fmodule-file=std=CMake Files/std.pcm"
            ]
        );
    }

    #[test]
    fn quotes_and_backslashes() {
        assert_eq!(split(r#"a\ b 'c d' "e\"f" '' g'h'i"#).unwrap(), ["a b", "c d", "e\"f", "", "ghi"]);
        assert_eq!(split("").unwrap(), [""; 0]);
        assert!(split("'open").is_err());
    }
}
