//! The papers and the programs say the same: each flag, variable and count that there is stands in the reference, and none
//! is named anywhere that is not there.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;

use pcmcache_tests::scratch::files_below;
use pcmcache_tests::spoken::{self, Count, Spoken};
use pcmcache_tests::{Scratch, deployed, tool};

/// Under this heading stands what is designed and not built.
const NOT_YET: &str = "\n## 11. Designed and not built yet";
const REFERENCE: &str = "deploy/REFERENCE.md";

/// What people read, and what they copy from.
fn papers() -> Vec<String> {
    let mut papers = vec!["README.md".to_owned(), "DESIGN.md".to_owned()];
    let deploy = files_below(&deployed::file("deploy"));
    papers.extend(deploy.iter().map(|file| format!("deploy/{}", file.display())));
    papers
}

fn programs() -> Vec<Spoken> {
    let mut all = spoken::program(&tool::server(), "pcmcache-server");
    all.extend(spoken::program(&tool::launcher(), "pcmcache"));
    all
}

/// Set `PCMCACHE_TEST_WRITE` to have it written anew.
#[test]
fn the_reference_is_what_the_programs_say() {
    let scratch = Scratch::new("reference");
    let now = reference(&programs(), &spoken::counts(&scratch));
    if std::env::var_os("PCMCACHE_TEST_WRITE").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(REFERENCE);
        fs_err::write(path, &now).expect("the reference");
    }
    let there = deployed::text(REFERENCE);
    let differs = there.lines().zip(now.lines()).find(|(there, now)| there != now);
    assert!(
        there == now,
        "{REFERENCE} is not what the programs say, first in {differs:?}: \
         PCMCACHE_TEST_WRITE=1 tests/run.sh -p pcmcache-tests --test papers writes it anew"
    );
}

/// Flags of other programs stand in the papers too, but not behind the name of one of ours.
#[test]
fn no_paper_names_a_command_or_a_flag_that_is_not_there() {
    let programs = programs();
    let (mut seen, mut wrong) = (0, Vec::new());
    for paper in papers() {
        for line in deployed::text(&paper).lines() {
            for (call, flags) in calls(line, &programs) {
                let spoken = programs.iter().find(|spoken| spoken.words == call).expect("a command of ours");
                let known = spoken.flags();
                for flag in flags {
                    seen += 1;
                    if !known.iter().any(|known| known.name == flag)
                        && !["--help", "--version"].contains(&flag)
                    {
                        wrong.push(format!("{paper}: {} has no {flag}: {line}", call.join(" ")));
                    }
                }
            }
            for call in first_words(line).filter(|call| !programs.iter().any(|spoken| spoken.words == *call))
            {
                wrong.push(format!("{paper}: {} has no {}: {line}", call[0], call[1]));
            }
            let all: BTreeSet<_> = programs.iter().flat_map(Spoken::flags).map(|flag| flag.name).collect();
            for flag in quoted_flags(line).filter(|flag| !all.contains(*flag)) {
                wrong.push(format!("{paper}: no program of ours has {flag}: {line}"));
            }
        }
    }
    assert!(seen >= 10, "only {seen} flags were found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_paper_names_a_variable_or_a_count_that_is_not_there() {
    let scratch = Scratch::new("names");
    let counts: BTreeSet<_> = spoken::counts(&scratch).into_iter().map(|count| count.name).collect();
    let help: String = programs().iter().map(|spoken| spoken.help.as_str()).collect();
    let scripts =
        ["deploy/quickstart.sh", "deploy/toolchain.sh", "deploy/cmake/pcmcache.cmake", "tests/run.sh"];
    let variables = words(&(help + &scripts.map(deployed::text).concat()), "PCMCACHE_");
    let mut wrong = Vec::new();
    for paper in papers() {
        let text = deployed::text(&paper);
        let (text, _) = text.split_once(NOT_YET).unwrap_or((&text, ""));
        for name in words(text, "PCMCACHE_").difference(&variables) {
            // `PCMCACHE_SERVER_*` is all that begin so.
            if !variables.iter().any(|known| known.starts_with(&format!("{name}_"))) {
                wrong.push(format!("{paper} names {name}"));
            }
        }
        // The log's rooms begin so too.
        if paper.ends_with(".md") {
            for name in words(&text.replace("pcmcache_server::", ""), "pcmcache_") {
                let whole = ["_bucket", "_count", "_sum"].iter().find_map(|part| name.strip_suffix(part));
                if !counts.contains(&name) && !whole.is_some_and(|whole| counts.contains(whole)) {
                    wrong.push(format!("{paper} names {name}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A variable that the sources read, and that nobody is told of, is one that nobody can use.
#[test]
fn every_variable_that_the_sources_read_is_told_of() {
    let help: String = programs().iter().map(|spoken| spoken.help.as_str()).collect();
    let told = words(&help, "PCMCACHE_");
    let mut read = BTreeSet::new();
    for room in ["client/src", "server/src", "shared/src"] {
        for file in files_below(&deployed::file(room)) {
            read.extend(words(&deployed::text(&format!("{room}/{}", file.display())), "PCMCACHE_"));
        }
    }
    let is_within = |name: &str| {
        // Of builds for tests only; from a launcher to its own watcher; how the text speaks of all of the server's.
        let known = ["PCMCACHE_FAILPOINT", "PCMCACHE_PASSED", "PCMCACHE_SERVER"];
        known.contains(&name) || name.starts_with("PCMCACHE_TEST_")
    };
    let untold: Vec<_> = read.difference(&told).filter(|name| !is_within(name)).collect();
    assert!(untold.is_empty(), "{untold:?}");
}

fn reference(programs: &[Spoken], counts: &[Count]) -> String {
    let mut text = "\
# Reference

Every flag of both programs and every count of the server, as the programs themselves tell them: `--help` and `/metrics`.
A test writes this page and compares it. The launcher is set by variables, which the README explains.
"
    .to_owned();
    for spoken in programs {
        // Those of the whole program are said once.
        let general = programs
            .iter()
            .filter(|other| other.words.len() < spoken.words.len() && spoken.words.starts_with(&other.words));
        let general: BTreeSet<_> = general.flat_map(Spoken::flags).map(|flag| flag.name).collect();
        let flags: Vec<_> = spoken.flags().into_iter().filter(|flag| !general.contains(&flag.name)).collect();
        if flags.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "\n## {}\n\n| flag | variable | default | meaning |\n|---|---|---|---|\n",
            spoken.words.join(" ")
        );
        for flag in flags {
            let value = if flag.value.is_empty() { String::new() } else { format!(" {}", flag.value) };
            let [variable, default] = [flag.variable, flag.default]
                .map(|cell| cell.map(|cell| format!("`{cell}`")).unwrap_or_default());
            let _ = writeln!(
                text,
                "| `{}{value}` | {variable} | {default} | {} |",
                flag.name,
                in_cell(&flag.meaning)
            );
        }
    }
    text += "\n## /metrics\n\n| count | kind | meaning |\n|---|---|---|\n";
    for Count { name, kind, help } in counts {
        let _ = writeln!(text, "| `{name}` | {kind} | {} |", in_cell(help));
    }
    text
}

fn in_cell(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "&lt;")
}

/// The calls of our programs in a line, each with the flags behind it. A launch (`pcmcache clang++ -c`) is none.
fn calls<'a>(line: &'a str, programs: &[Spoken]) -> Vec<(Vec<String>, Vec<&'a str>)> {
    let words: Vec<&str> =
        line.split([' ', '`', '"', '\'', '(', ')']).filter(|word| !word.is_empty()).collect();
    let starts = words
        .iter()
        .enumerate()
        .filter(|(_, word)| ["pcmcache", "pcmcache-server"].contains(&program_name(word)));
    let starts: Vec<usize> = starts.map(|(at, _)| at).collect();
    let mut calls = Vec::new();
    for start in starts {
        let mut call = vec![program_name(words[start]).to_owned()];
        let mut rest = words[start + 1..].iter().peekable();
        while let Some(word) = rest.peek() {
            let next = [call.clone(), vec![(**word).to_owned()]].concat();
            if !programs.iter().any(|spoken| spoken.words == next) {
                break;
            }
            call = next;
            rest.next();
        }
        let ends = |word: &str| ["|", "||", "&&", ";", "#"].contains(&word) || word.ends_with(';');
        let own = rest.take_while(|word| !ends(word));
        let flags: Vec<&str> =
            own.filter(|word| word.starts_with("--")).filter_map(|word| flag_name(word)).collect();
        // What a compiler is given comes behind the compiler.
        let launch = call == ["pcmcache"] && words.get(start + 1).is_some_and(|word| !word.starts_with("--"));
        if !launch && !flags.is_empty() {
            calls.push((call, flags));
        }
    }
    calls
}

/// Our programs in what is there to be typed, with the command that follows. A compiler that follows is none.
fn first_words(line: &str) -> impl Iterator<Item = [&str; 2]> {
    let is_typed = line.starts_with("    ") && !line.trim_start().starts_with('#');
    let spans = line.split('`').skip(1).step_by(2);
    let typed = is_typed.then_some(line).into_iter().chain(spans);
    let calls = typed.flat_map(|code| {
        ["pcmcache ", "pcmcache-server "].into_iter().flat_map(move |name| {
            let starts = code.match_indices(name);
            // `sudo -u pcmcache-server` names the user; a file, a directory or a step of CI may be called so, too.
            let calls = starts.filter(|(at, _)| code[..*at].ends_with(['/', ' ']) || *at == 0);
            let calls = calls.filter(|(at, _)| !code[..*at].ends_with("-u "));
            calls.map(move |(at, _)| (name, code[at + name.len()..].split(' ').next().unwrap_or_default()))
        })
    });
    let is_command = |word: &str| !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase());
    let calls = calls.flat_map(|(name, words)| words.split('|').map(move |word| [name.trim_end(), word]));
    calls.filter(move |[_, word]| is_command(word) && !["clang", "gcc", "cc"].contains(word))
}

fn program_name(word: &str) -> &str {
    word.rsplit('/').next().unwrap_or(word)
}

fn flag_name(word: &str) -> Option<&str> {
    let name = word.split(|c: char| !(c.is_ascii_lowercase() || c == '-')).next()?;
    (name.len() > 2).then_some(name)
}

/// Flags of compilers and of scripts that the papers name alone; `--help` is everyone's.
const OF_OTHERS: [&str; 4] = ["--help", "--keep", "--precompile", "--sysroot"];

/// `--flag` between backticks, alone or with its value.
fn quoted_flags(line: &str) -> impl Iterator<Item = &str> {
    let spans = line.split('`').skip(1).step_by(2).filter(|span| span.starts_with("--"));
    spans.filter_map(flag_name).filter(|flag| !OF_OTHERS.contains(flag))
}

/// The words of `text` that start so and go on in letters, whole.
fn words(text: &str, start: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let words = words.filter(|word| word.len() > start.len() && word.starts_with(start));
    words.map(|word| word.trim_end_matches('_').to_owned()).filter(|word| word.len() > start.len()).collect()
}
