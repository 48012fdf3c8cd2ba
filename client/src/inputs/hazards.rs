//! What a text holds that its digest does not cover: the clock, the times of files, files that no depfile lists. Where it
//! is not certain that it does, it is taken to: that costs a compile.

use memchr::memmem;

use crate::probes;

/// What a text must not hold: the clock is not in the key, nor is what the assembler reads.
const NOT_IN_KEY: [(&str, &str); 4] = [
    ("__DATE__", "time-macro"),
    ("__TIME__", "time-macro"),
    ("__TIMESTAMP__", "time-macro"),
    (".incbin", "incbin"),
];

/// Names whose meaning is not in the key, and which a macro could put together from parts.
const BUILT_IN: [&str; 6] =
    ["__has_include", "__has_include_next", "__has_embed", "__DATE__", "__TIME__", "__TIMESTAMP__"];

/// Why a compile that reads this text is not cached, in the words of the statistics.
pub(super) fn find(text: &[u8], is_system: bool) -> Option<&'static str> {
    let has = |word: &str| memmem::find(text, word.as_bytes()).is_some();
    let named = NOT_IN_KEY.iter().find(|(word, _)| has(word)).map(|(_, reason)| *reason);
    if named.is_some() || is_system {
        return named;
    }
    let of_users = [
        ("incbin", has_assembler_include(text)),
        ("pragma-dependency", compares_times(text)),
        ("computed-probe", probes::has_part_of(text, &BUILT_IN)),
    ];
    of_users.into_iter().find(|(_, holds)| *holds).map(|(reason, _)| reason)
}

/// Whether the text may tell the assembler to read a file, by `.incbin` or `.include`, parts of them, or a macro of the
/// assembler's own that puts them together.
fn has_assembler_include(text: &[u8]) -> bool {
    let has = |word: &[u8]| memmem::find(text, word).is_some();
    if !has(b"asm") {
        return false;
    }
    let in_macro = (has(b".macro") || has(b".irp")) && (has(b".\\") || has(b"\\()"));
    let joined = with_strings_joined(text);
    in_macro
        || memmem::find_iter(&joined, b".inc").any(|at| match joined.get(..at) {
            Some([.., b'"' | b' ' | b'\t' | b';' | b'\n']) => true,
            Some([.., b'\\', b't' | b'n']) => true,
            Some(_) | None => at == 0,
        })
}

/// The text with each string literal that follows another joined to it.
fn with_strings_joined(text: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        rest = match tail.trim_ascii_start().strip_prefix(b"\"") {
            Some(next) if *first == b'"' => next,
            Some(_) | None => {
                out.push(*first);
                tail
            }
        };
    }
    out
}

/// Whether the text may hold `#pragma GCC dependency "F"`, which compares the times of files; `_Pragma` may say it too.
fn compares_times(text: &[u8]) -> bool {
    let has = |line: &[u8], word: &[u8]| memmem::find(line, word).is_some();
    let mut lines = text.split(|byte| *byte == b'\n');
    let is_named = |at: usize| {
        let before = text.get(..at).unwrap_or_default().trim_ascii_end();
        before.ends_with(b"GCC") || before.ends_with(b"clang")
    };
    memmem::find_iter(text, b"dependency").any(is_named)
        || has(text, b"dependency") && lines.any(|line| has(line, b"dependency") && has(line, b"ragma"))
}

/// Whether the text may say `#pragma once`.
pub(super) fn is_read_once(text: &[u8]) -> bool {
    let has = |word: &[u8]| memmem::find(text, word).is_some();
    has(b"ragma") && has(b"once")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_digest_covers_is_found_in_all_its_forms() {
        for (text, reason) in [
            ("int t = __TIME__;", "time-macro"),
            ("asm(\".incbin \\\"x\\\"\")", "incbin"),
            ("asm(\".in\"\n \"\" \"clude x\")", "incbin"),
            ("asm(\".macro r a\\n.\\\\a x\\n.endm\\n r incbin\")", "incbin"),
            ("#pragma GCC dependency \"x\"", "pragma-dependency"),
            ("SAY(GCC\n dependency \"x\")", "pragma-dependency"),
            ("PASTE(__DA, TE__)", "computed-probe"),
        ] {
            assert_eq!(find(text.as_bytes(), false), Some(reason), "{text}");
        }
    }

    #[test]
    fn what_is_harmless_is_left_alone() {
        for text in ["asm(\"nop\"); x.include();", "\"a dependency \" \"x\"", "#include <x>"] {
            assert_eq!(find(text.as_bytes(), false), None, "{text}");
        }
        assert_eq!(find(b"asm(\".include x\")", true), None, "the system's");
    }
}
