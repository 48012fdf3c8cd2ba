//! What sources ask about files without reading them: the operands of `__has_include` and `__has_embed`.
//!
//! They are looked for in the text, since no output of the compiler tells. Macros that wrap a probe are followed:
//! after `#define HAS(x) __has_include(x)` each `HAS(<y>)` is a probe too. What cannot be followed makes the compile
//! uncacheable, except in the system's headers, which probe for the system's headers. Where it is not known whether
//! the compiler evaluates a probe, it is taken for one: that costs a compile, never a wrong hit.

use std::collections::BTreeSet;

use memchr::memmem;

/// A probe for a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Probe {
    /// The name that is looked for.
    pub name: String,
    /// Beside which file it is looked for, too.
    pub beside: Beside,
    /// How it asks.
    pub kind: Kind,
}

/// Beside which file something is looked for before it is looked for elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Beside {
    /// None: `<x>`.
    None,
    /// The one whose text asks: `#if __has_include("x")`.
    Asking,
    /// Whichever comes to use the macro that asks: `#define CHECK __has_include("x")`.
    Any,
}

/// How a probe asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// `__has_include`: is there one?
    Include,
    /// `__has_include_next`: is there one behind the directory that the asking file is in?
    IncludeNext,
    /// `__has_embed`: is there one, and is it empty?
    Embed,
}

/// A text that may hold probes.
#[derive(Debug)]
pub struct Text<'a> {
    /// The text, with its continued lines joined.
    pub bytes: &'a [u8],
    /// Whether it is one of the compiler's or the system's.
    pub is_system: bool,
}

/// Something is probed for that cannot be followed, in the text of this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotLiteral {
    /// Which text.
    pub text: usize,
}

const PROBES: [(&str, Kind); 3] = [
    ("__has_include", Kind::Include),
    ("__has_include_next", Kind::IncludeNext),
    ("__has_embed", Kind::Embed),
];
/// What compilers define that could be a part of a header's name.
const PREDEFINED: [&str; 8] = ["arm", "i386", "linux", "mips", "sparc", "sun", "unix", "vax"];
/// The most macros that wrap a probe.
const MAX_WRAPPERS: usize = 64;

/// The probes in these texts, each with the number of its text. `macros`: those that the command line defines.
pub fn find(texts: &[Text<'_>], macros: &[&str]) -> Result<BTreeSet<(usize, Probe)>, NotLiteral> {
    let mut names: Vec<(String, Kind)> =
        PROBES.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect();
    let mut found = BTreeSet::new();
    let mut opaque = BTreeSet::new();
    let mut next = 0;
    while let Some((name, kind)) = names.get(next).cloned() {
        next += 1;
        for (number, text) in texts.iter().enumerate() {
            for at in uses(text.bytes, &name) {
                let line = before(text.bytes, at);
                match read(text.bytes, at, &name) {
                    Read::Nothing => {}
                    Read::Operand { name, beside, is_direct }
                        if is_direct
                            || beside != Beside::None
                            || !holds_macro(&name, line, texts, macros) =>
                    {
                        found.insert((number, Probe { name, beside, kind }));
                    }
                    Read::Wrapper(wrapper) if names.len() < MAX_WRAPPERS => {
                        if !names.iter().any(|(known, _)| *known == wrapper) {
                            names.push((wrapper, kind));
                        }
                    }
                    Read::Wrapper(_) | Read::Unknown | Read::Operand { .. } if text.is_system => {
                        opaque.extend(defined(line));
                    }
                    Read::Wrapper(_) | Read::Unknown | Read::Operand { .. } => {
                        return Err(NotLiteral { text: number });
                    }
                }
            }
        }
    }
    refuse_users(opaque, texts)?;
    Ok(found)
}

/// What the system's headers ask by macros that were not followed must not be asked by others.
fn refuse_users(mut macros: BTreeSet<String>, texts: &[Text<'_>]) -> Result<(), NotLiteral> {
    let mut done = BTreeSet::new();
    while let Some(name) = macros.pop_first() {
        for (number, text) in texts.iter().enumerate() {
            let lines = uses(text.bytes, &name).map(|at| before(text.bytes, at));
            for line in lines.filter(|line| !is_in_comment(line) && !is_asked_for(line)) {
                if !text.is_system {
                    return Err(NotLiteral { text: number });
                }
                macros.extend(defined(line).filter(|user| !done.contains(user)));
            }
        }
        done.insert(name);
    }
    Ok(())
}

/// Whether a part of an operand `<a/b>`, which goes through a macro, may be a macro or the parameter of one.
fn holds_macro(operand: &str, line: &[u8], texts: &[Text<'_>], macros: &[&str]) -> bool {
    let is_defined = |word: &str| {
        let mut used = texts.iter().flat_map(|text| uses(text.bytes, word).map(|at| before(text.bytes, at)));
        macros.contains(&word)
            || PREDEFINED.contains(&word)
            || uses(line, word).next().is_some()
            || used.any(|line| last_word(line.trim_ascii_end()) == b"define")
    };
    operand
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .any(|word| !word.is_empty() && is_defined(word))
}

/// A text with its continued lines joined, as the compilers read it: blanks may stand between the backslash and the end
/// of the line, and a carriage return ends one too.
pub fn joined(text: Vec<u8>) -> Vec<u8> {
    let is_continued = |at: usize| text.get(at + 1).is_some_and(u8::is_ascii_whitespace);
    if memchr::memchr(b'\r', &text).is_none() && !memchr::memchr_iter(b'\\', &text).any(is_continued) {
        return text;
    }
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_slice();
    while let Some((first, tail)) = rest.split_first() {
        let continued = (*first == b'\\').then(|| behind_line_end(without_blanks(tail))).flatten();
        if let Some(behind) = continued {
            rest = behind;
        } else if let Some(behind) = behind_line_end(rest) {
            out.push(b'\n');
            rest = behind;
        } else {
            out.push(*first);
            rest = tail;
        }
    }
    out
}

fn without_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|c| matches!(c, b' ' | b'\t' | b'\x0b' | b'\x0c')).count();
    text.get(blanks..).unwrap_or_default()
}

/// What follows the end of a line, if this begins with one.
fn behind_line_end(text: &[u8]) -> Option<&[u8]> {
    match text {
        [b'\r', b'\n', behind @ ..] | [b'\n' | b'\r', behind @ ..] => Some(behind),
        _ => None,
    }
}

/// The operands of the text's `#include`s: literal ones, and whether there may be one that is none.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Included {
    /// The names, without their quotes.
    pub names: Vec<String>,
    /// Whether a macro may say what is included.
    pub computed: bool,
}

/// What the text includes by itself, as far as it says so.
pub fn included(text: &[u8]) -> Included {
    let mut included = Included::default();
    for line in text.split(|byte| *byte == b'\n') {
        for word in ["include", "include_next", "import"] {
            for at in uses(line, word).filter(|at| begins_directive(line.get(..*at).unwrap_or_default())) {
                match literal(line.get(at + word.len()..).unwrap_or_default()) {
                    Some(name) => included.names.push(name),
                    None => included.computed = true,
                }
            }
        }
    }
    included
}

/// Whether the text may say `#import`.
pub fn imports_files(text: &[u8]) -> bool {
    uses(text, "import").any(|at| begins_directive(before(text, at)))
}

/// Whether this, which stands before a word, makes it a directive: a `#` in one of its spellings with nothing but
/// comments around it. Where a comment began on a line above, the `#` may stand there.
fn begins_directive(before: &[u8]) -> bool {
    let is_blank = |text: &[u8]| {
        let text = text.trim_ascii();
        text.is_empty() || text.ends_with(b"*/")
    };
    let parts = |sign: &[u8]| {
        let at = memmem::find(before, sign)?;
        Some((before.get(..at)?, before.get(at + sign.len()..)?))
    };
    let signs = [&b"#"[..], b"%:", b"??="];
    signs.iter().filter_map(|sign| parts(sign)).any(|(first, rest)| is_blank(first) && is_blank(rest))
        || before.trim_ascii().ends_with(b"*/")
}

/// The name in a literal operand.
fn literal(operand: &[u8]) -> Option<String> {
    let mut operand = operand.trim_ascii_start();
    while let Some(comment) = operand.strip_prefix(b"/*") {
        operand = comment.get(memmem::find(comment, b"*/")? + 2..)?.trim_ascii_start();
    }
    let (end, name) = match operand.split_first()? {
        (b'"', name) => (b'"', name),
        (b'<', name) => (b'>', name),
        _ => return None,
    };
    String::from_utf8(name.get(..memchr::memchr(end, name)?)?.to_owned()).ok()
}

/// Whether a word of this text is a part of one of the names: pasted to the rest of it, it would be that name.
pub fn has_part_of(text: &[u8], names: &[&str]) -> bool {
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let words = text.split(|c| !is_word(c)).filter(|word| word.len() >= SHORTEST_PART);
    let is_part = |word: &[u8]| {
        !names.iter().any(|name| name.as_bytes() == word)
            && names.iter().map(|name| name.as_bytes()).any(|name| {
                word.len() < name.len()
                    && (name.starts_with(word)
                        || name.ends_with(word)
                            && word.len() >= SHORTEST_END
                            && !word.starts_with(b"include"))
            })
    };
    words.filter(|word| word.starts_with(b"_") || word.ends_with(b"_") || word.contains(&b'_')).any(is_part)
}

/// The shortest first part, and last part, of a name that is taken for one.
const SHORTEST_PART: usize = 3;
const SHORTEST_END: usize = 6;

enum Read {
    /// It is only asked whether there is such a thing, or it is spoken of in a comment.
    Nothing,
    /// A literal operand, beside what it is looked for, and whether it is read as it stands, through no macro.
    Operand { name: String, beside: Beside, is_direct: bool },
    /// The operand is a parameter of the macro of this name.
    Wrapper(String),
    /// None of these.
    Unknown,
}

/// Where the name stands as a word of its own.
fn uses<'a>(text: &'a [u8], name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let is_word = |byte: Option<&u8>| byte.is_some_and(|c| c.is_ascii_alphanumeric() || *c == b'_');
    memmem::find_iter(text, name.as_bytes()).filter(move |at| {
        let before = at.checked_sub(1).and_then(|before| text.get(before));
        !is_word(before) && !is_word(text.get(at + name.len()))
    })
}

fn read(text: &[u8], at: usize, name: &str) -> Read {
    let before = before(text, at);
    let after = text.get(at + name.len()..).unwrap_or_default();
    if is_in_comment(before) || is_asked_for(before) {
        return Read::Nothing;
    }
    let Some(operand) = after.trim_ascii_start().strip_prefix(b"(") else { return Read::Unknown };
    let operand = operand.trim_ascii_start();
    let (beside, end) = match operand.first() {
        Some(b'"') if is_condition(before) => (Beside::Asking, b'"'),
        Some(b'"') => (Beside::Any, b'"'),
        Some(b'<') => (Beside::None, b'>'),
        Some(_) | None => return wrapper(before, operand).map_or(Read::Unknown, Read::Wrapper),
    };
    let is_direct =
        is_condition(before) && !is_in_arguments(before) && PROBES.iter().any(|(probe, _)| *probe == name);
    let name = operand.get(1..).unwrap_or_default();
    let end = name.iter().position(|c| *c == end || *c == b'\n');
    let name = end.and_then(|end| name.get(..end)).and_then(|name| std::str::from_utf8(name).ok());
    name.map_or(Read::Unknown, |name| Read::Operand { name: name.to_owned(), beside, is_direct })
}

/// What stands before this place on its line.
fn before(text: &[u8], at: usize) -> &[u8] {
    let before = text.get(..at).unwrap_or_default();
    let start = memchr::memrchr(b'\n', before).map_or(0, |end| end + 1);
    before.get(start..).unwrap_or_default()
}

/// The word that this ends with.
fn last_word(line: &[u8]) -> &[u8] {
    line.rsplit(|c| !c.is_ascii_alphanumeric() && *c != b'_').next().unwrap_or_default()
}

/// Whether a parenthesis is open that stands behind a word: then this may be in the arguments of a macro.
fn is_in_arguments(before: &[u8]) -> bool {
    let mut open = Vec::new();
    for (at, c) in before.iter().enumerate() {
        if *c == b'(' {
            let word = last_word(before.get(..at).unwrap_or_default().trim_ascii_end());
            open.push(!matches!(word, b"" | b"if" | b"elif"));
        } else if *c == b')' {
            open.pop();
        }
    }
    open.contains(&true)
}

/// Whether this begins an `#if` or `#elif`: what stands there is asked where it stands.
fn is_condition(before: &[u8]) -> bool {
    let directive = before.trim_ascii_start().strip_prefix(b"#").map(<[u8]>::trim_ascii_start);
    directive.is_some_and(|directive| directive.starts_with(b"if") || directive.starts_with(b"elif"))
}

/// Behind `//` in a line without quotes nothing is evaluated, unless the line began in a comment that ends there.
fn is_in_comment(before: &[u8]) -> bool {
    memmem::find(before, b"//").is_some_and(|at| {
        let code = before.get(..at).unwrap_or_default();
        !code.iter().any(|c| matches!(c, b'"' | b'\'' | b'*')) && memmem::find(before, b"*/").is_none()
    })
}

/// Whether this ends with what asks for the name alone, or defines it.
fn is_asked_for(before: &[u8]) -> bool {
    let before = before.trim_ascii_end();
    let before = before.strip_suffix(b"(").map_or(before, <[u8]>::trim_ascii_end);
    let words = [&b"defined"[..], b"ifdef", b"ifndef", b"elifdef", b"elifndef", b"define", b"undef"];
    words.contains(&last_word(before))
}

/// The macro that this line defines, if the operand is its first parameter.
fn wrapper(line: &[u8], operand: &[u8]) -> Option<String> {
    let name = defined(line)?;
    let line = std::str::from_utf8(line).ok()?;
    let (_, parameters) = line.split_once(&format!("{name}("))?;
    let first = parameters.split([',', ')']).next()?.trim();
    let is_word = |c: &u8| c.is_ascii_alphanumeric() || *c == b'_';
    let end = operand.iter().position(|c| !is_word(c)).unwrap_or(operand.len());
    (!first.is_empty() && operand.get(..end)? == first.as_bytes()).then_some(name)
}

/// The macro that this line defines.
fn defined(line: &[u8]) -> Option<String> {
    let line = std::str::from_utf8(line).ok()?.trim_start().strip_prefix('#')?.trim_start();
    let rest = line.strip_prefix("define")?.trim_start();
    let name: String = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn probes(texts: &[&str]) -> Result<Vec<(usize, String, Beside)>, NotLiteral> {
        let texts: Vec<_> =
            texts.iter().map(|text| Text { bytes: text.as_bytes(), is_system: false }).collect();
        Ok(find(&texts, &["GIVEN"])?
            .into_iter()
            .map(|(text, probe)| (text, probe.name, probe.beside))
            .collect())
    }

    #[test]
    fn operands_are_read_and_what_is_no_probe_is_passed_over() {
        let text = "#ifdef __has_include\n#if __has_include(<a/b.h>) || __has_include_next( \"c.h\" )\n#if defined(__has_include)\n// a __has_include(WORD) in prose\n__has_include__ __has_includes(x)";
        let found = probes(&[text]).unwrap();
        let expected = [(0, "a/b.h".to_owned(), Beside::None), (0, "c.h".to_owned(), Beside::Asking)];
        assert_eq!(found, expected);
        let embedded = probes(&["#elif __has_embed(\"x\" limit(1))"]).unwrap();
        assert_eq!(embedded, [(0, "x".to_owned(), Beside::Asking)]);
    }

    #[test]
    fn a_macro_asks_beside_whoever_uses_it() {
        for text in ["#define C __has_include(\"x\")", "/*\n*/ __has_include(\"x\")"] {
            assert_eq!(probes(&[text]).unwrap(), [(0, "x".to_owned(), Beside::Any)], "{text}");
        }
    }

    #[test]
    fn macros_that_wrap_a_probe_are_followed_through_files() {
        let texts = [
            "#define HAS(x) __has_include(x)\n#else\n#define HAS(x) 0\n",
            "# define ALSO( y , z ) HAS(y)\n",
            "#if ALSO(<v.h>, 1)\n#if HAS(\"w.h\")\n",
        ];
        let found = probes(&texts).unwrap();
        assert_eq!(found, [(2, "v.h".to_owned(), Beside::None), (2, "w.h".to_owned(), Beside::Asking)]);
    }

    #[test]
    fn what_cannot_be_followed_is_said() {
        for text in [
            "#if __has_include(NAME)",
            "__has_include(\"open",
            "#define PROBE __has_include\n",
            "#define HAS(x) __has_include(y)",
            "/* // */ #if __has_include(NAME)",
            "/*\n//*/ #if __has_include(NAME)",
            "#if is_defined(__has_include(NAME))",
        ] {
            assert_eq!(probes(&["", text]), Err(NotLiteral { text: 1 }), "{text}");
        }
        let system = Text { bytes: b"__has_include(NAME)", is_system: true };
        assert_eq!(find(&[system], &[]), Ok(BTreeSet::new()));
    }

    #[test]
    fn an_operand_that_goes_through_a_macro_is_no_literal_if_it_may_hold_one() {
        for text in [
            "#define HAS(name) __has_include(<dir/name.h>)",
            "#define DIR x\n#define HAS __has_include(<DIR/x.h>)",
            "#define DIR x\n#define HAS(x) __has_include(x)\n#if HAS(<DIR/x.h>)",
            "#define DIR x\n#if SAME(__has_include(<DIR/x.h>))",
            "#define HAS(x) __has_include(x)\n#if HAS(<linux/x.h>)",
            "#define HAS(x) __has_include(x)\n#if HAS(<GIVEN/x.h>)",
            "#define SECOND(x, y) __has_include(y)\n#if SECOND(\"x\", \"y\")",
        ] {
            assert_eq!(probes(&["", text]), Err(NotLiteral { text: 1 }), "{text}");
        }
        let literal = "#define linux x\n#if defined(X) && (__has_include(<linux/x.h>))";
        assert_eq!(probes(&[literal]).unwrap(), [(0, "linux/x.h".to_owned(), Beside::None)]);
    }

    #[test]
    fn a_macro_of_the_system_that_cannot_be_followed_is_not_for_others() {
        let system = |bytes| Text { bytes, is_system: true };
        let own = [system(b"#define ASKS __has_include\n"), system(b"#define TOO ASKS\n#if ASKS(<x.h>)\n")];
        assert_eq!(find(&own, &[]), Ok(BTreeSet::new()));
        for text in [&b"#if ASKS(<x.h>)"[..], b"#if TOO(<x.h>)"] {
            let [first, second] = own.each_ref().map(|text| system(text.bytes));
            let users = Text { bytes: text, is_system: false };
            assert_eq!(find(&[first, second, users], &[]), Err(NotLiteral { text: 2 }));
        }
    }

    #[test]
    fn parts_of_a_name_that_could_be_pasted_are_seen() {
        let names = ["__has_include", "__has_include_next", "__DATE__"];
        for text in ["PASTE(__has_, include)", "a ## __DAT", "CAT(_,_has_include)", "CAT(__,DATE__)"] {
            assert!(has_part_of(text.as_bytes(), &names), "{text}");
        }
        for text in ["#include <x>", "has_x __has_include __DATE__", "__x _E__"] {
            assert!(!has_part_of(text.as_bytes(), &names), "{text}");
        }
    }

    #[test]
    fn what_is_included_is_read() {
        let text = b"#include \"a/b.h\"\n # include <c>\n/**/ %:import/**/<d>\n// #include \"no.h\"\n * #include prose\n";
        let names = ["a/b.h", "c", "d"].map(str::to_owned).to_vec();
        assert_eq!(included(text), Included { names, computed: false });
    }

    #[test]
    fn an_include_that_a_macro_names_is_seen() {
        for line in [
            "#include NAME",
            "# /* x */ include_next/**/NAME",
            "*/ #include NAME",
            "??=import(NAME)",
            "*/ include NAME",
            "#include \"open",
            "#include /* open",
        ] {
            assert!(included(line.as_bytes()).computed, "{line}");
        }
    }

    #[test]
    fn continued_lines_are_joined() {
        assert_eq!(joined(b"__has_\\\ninclude(\\\r\n<x>)".to_vec()), b"__has_include(<x>)");
        assert_eq!(joined(b"a\\ \t\nb\\\rc\\".to_vec()), b"abc\\");
        assert_eq!(joined(b"plain\\x\n".to_vec()), b"plain\\x\n");
    }

    #[test]
    fn lines_end_in_several_ways() {
        assert_eq!(joined(b"a\rb\r\nc\n".to_vec()), b"a\nb\nc\n");
    }
}
