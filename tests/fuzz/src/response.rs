//! Response files: words as GNU tools split them. What was split, quoted again, splits into the same words.

use pcmcache::invocation::response::split;

pub(crate) fn run(input: &[u8]) {
    let Ok(text) = str::from_utf8(input) else { return };
    let Ok(words) = split(text) else { return };
    assert!(words.iter().map(String::len).sum::<usize>() <= text.len(), "words grew out of nothing");
    let quoted: String = words.iter().map(|word| format!("{}\n", quote(word))).collect();
    assert_eq!(split(&quoted).expect("what was quoted"), words);
}

/// As CMake writes a word that is not plain.
pub(crate) fn quote(word: &str) -> String {
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}
