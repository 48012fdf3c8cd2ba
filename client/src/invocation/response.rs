//! Response files: `@FILE` on a command line, split as the compiler splits them.

use std::ffi::OsString;
use std::path::Path;

use crate::invocation::Bypass;

/// The largest response file anyone reads, in bytes.
pub const MAX_FILE: u64 = 4 * 1024 * 1024;

/// The most arguments, after expansion, and their total size in bytes, that a new process surely takes.
const MAX_WORDS: usize = 50_000;
const MAX_WORD_BYTES: usize = 1024 * 1024;
/// How deep response files may name each other.
const MAX_DEPTH: usize = 8;

/// A word, and whether it came from a response file of CMake's module maps.
#[derive(Debug)]
pub struct Word {
    /// The word.
    pub text: String,
    /// Whether CMake's module mapper wrote it.
    pub modmap: bool,
}

/// The arguments with what stands in response files in the place of their names.
pub fn expand(
    args: &[OsString],
    read_response: &dyn Fn(&Path) -> Option<String>,
) -> Result<Vec<Word>, Bypass> {
    let mut words = Vec::with_capacity(args.len());
    for arg in args {
        let text = arg.to_str().ok_or_else(|| Bypass::new("not-utf8", arg.to_string_lossy()))?;
        add(text, false, 0, read_response, &mut words)?;
    }
    let bytes: usize = words.iter().map(|word| word.text.len() + 1).sum();
    if bytes > MAX_WORD_BYTES { Err(too_many(&words)) } else { Ok(words) }
}

fn too_many(words: &[Word]) -> Bypass {
    Bypass::new("too-many-arguments", format!("{} arguments", words.len()))
}

/// A name in a response file is relative to the directory the compiler runs in, as one on the command line is.
fn add(
    text: &str,
    modmap: bool,
    depth: usize,
    read_response: &dyn Fn(&Path) -> Option<String>,
    words: &mut Vec<Word>,
) -> Result<(), Bypass> {
    let Some(path) = text.strip_prefix('@') else {
        words.push(Word { text: text.to_owned(), modmap });
        // Checked here too, so that what is nested cannot grow without end.
        return if words.len() > MAX_WORDS { Err(too_many(words)) } else { Ok(()) };
    };
    let unreadable = || Bypass::new("response-file", path);
    if depth == MAX_DEPTH {
        return Err(unreadable());
    }
    let modmap = modmap || path.ends_with(".modmap");
    for word in split(&read_response(Path::new(path)).ok_or_else(unreadable)?)? {
        add(&word, modmap, depth + 1, read_response, words)?;
    }
    Ok(())
}

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
