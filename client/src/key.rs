//! From an invocation and the facts about it to the unit's lines. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::Unit;

use crate::invocation::Invocation;

/// What makes a BMI's bytes alone determine what an importer compiles to: the text of the sources lies in it.
pub const EMBED: [&str; 2] = ["-Xclang", "-fmodules-embed-all-files"];
/// What makes diagnostics look as the terminal would have had them, where we stand between it and the compiler.
pub const COLOUR: &str = "-fcolor-diagnostics";

/// What was found out about an invocation before anything is learnt by compiling.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The compiler's identity.
    pub compiler: Digest,
    /// What the driver makes of the arguments.
    pub cc1: Digest,
    /// The directory the compiler runs in.
    pub cwd: PathBuf,
    /// The variables the compiler reads.
    pub variables: Vec<(&'static str, OsString)>,
    /// The source's bytes.
    pub source: Digest,
    /// The named BMIs: module and bytes.
    pub bmis: Vec<(String, Digest)>,
    /// Whether colours are asked for on behalf of a terminal.
    pub colour: bool,
}

/// The unit's lines.
pub fn unit(invocation: &Invocation, facts: &Facts) -> Unit {
    let mut unit = Unit::new();
    unit.compiler(facts.compiler);
    unit.cc1(facts.cc1);
    if invocation.holds_cwd || !facts.variables.is_empty() {
        unit.cwd(&facts.cwd);
    }
    for arg in arguments(invocation, facts) {
        unit.arg(arg.as_bytes());
    }
    for (name, value) in &facts.variables {
        unit.env(name, value.as_bytes());
    }
    unit.source(&invocation.source, facts.source);
    let mut bmis = facts.bmis.clone();
    bmis.sort();
    for (module, digest) in bmis {
        unit.bmi(&module, digest);
    }
    unit
}

/// The arguments that enter the key: the user's in their order, then in a fixed order what was said in other ways.
fn arguments(invocation: &Invocation, facts: &Facts) -> Vec<String> {
    let mut args = invocation.keyed_words();
    args.push(format!("-x{}", invocation.language.word()));
    if invocation.object.is_some() && invocation.bmi.is_some() {
        args.push("-fmodule-output".to_owned());
    }
    if invocation.embeds_sources() {
        args.extend(EMBED.map(str::to_owned));
    }
    if facts.colour {
        args.push(COLOUR.to_owned());
    }
    if let Some(depfile) = &invocation.depfile {
        args.push(if depfile.system_headers { "-MD" } else { "-MMD" }.to_owned());
        if depfile.phony {
            args.push("-MP".to_owned());
        }
        match &depfile.target {
            Some((flag, target)) => args.extend([(*flag).to_owned(), target.clone()]),
            None => args.extend(["-MQ".to_owned(), invocation.main_output().to_string_lossy().into_owned()]),
        }
    }
    args
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::flags::{Effect, Form, LANGUAGE_FLAGS, LANGUAGE_VALUES, TABLE};

    fn invocation(line: &[&str]) -> Invocation {
        let args: Vec<OsString> = line.iter().map(OsString::from).collect();
        Invocation::parse(&args, &|_| None).unwrap_or_else(|bypass| panic!("{line:?}: {bypass:?}"))
    }

    fn facts() -> Facts {
        Facts {
            compiler: Digest::of("clang"),
            cc1: Digest::of("cc1"),
            cwd: "/build".into(),
            variables: Vec::new(),
            source: Digest::of("source"),
            bmis: vec![("std".to_owned(), Digest::of("std"))],
            colour: false,
        }
    }

    const PLAIN: [&str; 4] = ["-c", "/src/a.cpp", "-o", "a.o"];

    fn text(line: &[&str]) -> String {
        unit(&invocation(line), &facts()).text().to_owned()
    }

    #[test]
    fn every_flag_that_enters_the_key_changes_it() {
        let plain = text(&PLAIN);
        let table = TABLE.iter().filter_map(|row| {
            let value = if row.spelling.ends_with('=') || row.form != Form::Exact { "value" } else { "" };
            match row.effect {
                Effect::Key | Effect::KeyAndCwd | Effect::KeyPath => Some(format!("{}{value}", row.spelling)),
                Effect::Quiet | Effect::Role(_) | Effect::Bypass(_) => None,
            }
        });
        let language = LANGUAGE_FLAGS.iter().flat_map(|flag| [format!("-f{flag}"), format!("-fno-{flag}")]);
        let values = LANGUAGE_VALUES.iter().map(|flag| format!("-f{flag}=value"));
        for flag in table.chain(language).chain(values) {
            let words: Vec<&str> =
                if flag == "-targetvalue" { vec!["-target", "value"] } else { vec![&flag] };
            let line = [&words[..], &PLAIN].concat();
            assert_ne!(text(&line), plain, "{flag}");
        }
    }

    #[test]
    fn the_order_of_flags_is_in_the_key() {
        assert_ne!(
            text(&[&["-DA", "-UA"], &PLAIN[..]].concat()),
            text(&[&["-UA", "-DA"], &PLAIN[..]].concat())
        );
    }

    #[test]
    fn names_of_outputs_are_not_in_the_key_unless_the_depfile_holds_them() {
        assert_eq!(text(&["-c", "/src/a.cpp", "-o", "a.o"]), text(&["-c", "/src/a.cpp", "-o", "b/c.o"]));
        assert_ne!(
            text(&["-MD", "-c", "/src/a.cpp", "-o", "a.o"]),
            text(&["-MD", "-c", "/src/a.cpp", "-o", "b.o"])
        );
        assert_eq!(
            text(&["-MD", "-MT", "t", "-MF", "a.d", "-c", "/src/a.cpp", "-o", "a.o"]),
            text(&["-MD", "-MT", "t", "-MF", "b.d", "-c", "/src/a.cpp", "-o", "b.o"])
        );
    }

    #[test]
    fn bmis_enter_by_module_and_bytes_never_by_path() {
        let one = ["-fmodule-file=std=x/std.pcm", "-c", "/src/a.cpp"];
        let other = ["-fmodule-file=std=y/std.pcm", "-c", "/src/a.cpp"];
        assert_eq!(text(&one), text(&other));
        let mut rebuilt = facts();
        rebuilt.bmis = vec![("std".to_owned(), Digest::of("another std"))];
        assert_ne!(unit(&invocation(&one), &rebuilt).key(), unit(&invocation(&one), &facts()).key());
    }

    #[test]
    fn every_fact_changes_the_key() {
        let base = unit(&invocation(&["-g", "-c", "/src/a.cpp"]), &facts());
        let changes: [fn(&mut Facts); 6] = [
            |facts| facts.compiler = Digest::of("another"),
            |facts| facts.cc1 = Digest::of("another"),
            |facts| facts.cwd = "/elsewhere".into(),
            |facts| facts.variables = vec![("CPATH", "/opt".into())],
            |facts| facts.source = Digest::of("edited"),
            |facts| facts.colour = true,
        ];
        for (index, change) in changes.iter().enumerate() {
            let mut changed = facts();
            change(&mut changed);
            assert_ne!(
                unit(&invocation(&["-g", "-c", "/src/a.cpp"]), &changed).key(),
                base.key(),
                "change {index}"
            );
        }
    }

    #[test]
    fn the_directory_is_in_the_key_only_where_the_output_holds_it() {
        let mut elsewhere = facts();
        elsewhere.cwd = "/elsewhere".into();
        let plain = invocation(&PLAIN);
        assert_eq!(unit(&plain, &elsewhere).key(), unit(&plain, &facts()).key());
    }
}
