//! From an invocation and the facts about it to the unit's lines. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::Unit;

use crate::bases::{Bases, MARK};
use crate::invocation::{Arg, Family, Invocation, Kind, Language};

/// What makes a BMI's bytes alone determine what an importer compiles to: the text of the sources lies in it.
pub const EMBED: [&str; 2] = ["-Xclang", "-fmodules-embed-all-files"];
/// What was found out about an invocation before anything is learnt by compiling.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The compiler's identity, and that of the programs it runs.
    pub compiler: Vec<Digest>,
    /// What the driver makes of the arguments.
    pub cc1: Digest,
    /// The directory the compiler runs in.
    pub cwd: PathBuf,
    /// The variables the compiler reads.
    pub variables: Vec<(&'static str, OsString)>,
    /// The source's bytes; none for a header that has to be looked for.
    pub source: Option<Digest>,
    /// The named BMIs: module and bytes.
    pub bmis: Vec<(String, Digest)>,
    /// Other files that the arguments lead to.
    pub inputs: Vec<(PathBuf, Digest)>,
    /// Directories of headers that are none, and of which the compiler warns; whether something else is there.
    pub no_directories: Vec<(PathBuf, bool)>,
    /// Whether colours are asked for on behalf of a terminal.
    pub colour: bool,
    /// Whether the depfile that is asked for lists the BMIs, by their names.
    pub lists_bmis: bool,
    /// The base directories that apply.
    pub bases: Bases,
}

/// The unit's lines.
pub fn unit(invocation: &Invocation, facts: &Facts) -> Unit {
    let bases = &facts.bases;
    let mut unit = Unit::new();
    for identity in &facts.compiler {
        unit.compiler(*identity);
    }
    unit.cc1(facts.cc1);
    if leads_out(invocation, facts) {
        unit.cwd(&facts.cwd);
    } else if invocation.holds_cwd || !facts.variables.is_empty() {
        unit.cwd(&bases.spell_path(&facts.cwd));
    }
    for arg in arguments(invocation, facts) {
        unit.arg(arg.as_bytes());
    }
    if invocation.absolute {
        unit.output(&facts.cwd.join(invocation.main_output()));
    }
    for (name, value) in &facts.variables {
        unit.env(name, value.as_bytes());
    }
    if let Some(source) = facts.source {
        unit.source(&bases.spell_path(&invocation.source), source);
    }
    for (path, digest) in &facts.inputs {
        unit.input(&bases.spell_path(path), *digest);
    }
    // Named ones load by name, so their order does not matter; that of the others might.
    let (mut named, others): (Vec<_>, Vec<_>) = facts.bmis.iter().partition(|(module, _)| !module.is_empty());
    // Of two of one name the order decides.
    named.sort_by(|(one, _), (other, _)| one.cmp(other));
    for (module, digest) in named.into_iter().chain(others) {
        unit.bmi(module, *digest);
    }
    unit
}

/// Whether base directories apply, and a relative path leads to a place above them: then it is another one elsewhere.
fn leads_out(invocation: &Invocation, facts: &Facts) -> bool {
    let relative = |path: &&Path| path.is_relative() && !facts.bases.contain(&facts.cwd, path);
    let args = invocation.args.iter().filter_map(|arg| match arg {
        Arg::Path(arg) => Some(Path::new(&arg.path)),
        Arg::Key(_)
        | Arg::PrefixMap { .. }
        | Arg::Quiet(_)
        | Arg::Bmi(_)
        | Arg::PrebuiltPath(_)
        | Arg::Action(_)
        | Arg::Source => None,
    });
    !facts.bases.is_empty() && args.chain([invocation.source.as_path()]).any(|path| relative(&path))
}

/// The arguments that enter the key: the user's in their order, then in a fixed order what was said in other ways.
fn arguments(invocation: &Invocation, facts: &Facts) -> Vec<String> {
    let bases = &facts.bases;
    let mut args = invocation.keyed_words(|path| bases.spell(path));
    args.push(format!("-x{}", invocation.language.word()));
    if invocation.object.is_some() && invocation.bmi.is_some() {
        args.push("-fmodule-output".to_owned());
    }
    if invocation.kind == Kind::HeaderUnit {
        args.push(invocation.source.to_string_lossy().into_owned());
    }
    if invocation.embeds_sources() {
        args.extend(EMBED.map(str::to_owned));
    }
    if facts.colour {
        args.push(colour(invocation.family).to_owned());
    }
    if let Some(object) = &invocation.scanned {
        args.push(format!("scans for {}", bases.spell(&object.to_string_lossy())));
    }
    args.extend(invocation.extras.iter().map(|extra| format!("makes {}", extra.role)));
    for (path, is_other) in &facts.no_directories {
        let what = if *is_other { "is no directory" } else { "is not there" };
        args.push(format!("{} {what}", bases.spell_path(path).display()));
    }
    if facts.lists_bmis {
        // BMIs that are found, other than those that are named, are listed by their absolute names.
        let found_in = invocation.prebuilt_paths.iter().map(|path| facts.cwd.join(path));
        let places = invocation.bmis.iter().map(|bmi| bmi.path.clone()).chain(found_in);
        args.extend(places.map(|path| format!("lists {}", bases.spell_path(&path).display())));
    }
    if let Some(depfile) = &invocation.depfile {
        args.push(if depfile.system_headers { "-MD" } else { "-MMD" }.to_owned());
        if depfile.phony {
            args.push("-MP".to_owned());
        }
        let target =
            |target: &str| target.split(' ').map(|name| bases.spell(name)).collect::<Vec<_>>().join(" ");
        match &depfile.target {
            Some((flag, text)) => args.extend([(*flag).to_owned(), target(text)]),
            None => args.extend(["-MQ".to_owned(), target(&invocation.main_output().to_string_lossy())]),
        }
    }
    if !bases.is_empty() {
        args.push(MARK.to_owned());
    }
    args
}

/// The header that a unit of this text makes a header unit of, as its line has it.
pub fn header_of_unit(unit: &str) -> Option<&str> {
    let languages = [Language::Header, Language::UserHeader, Language::SystemHeader];
    let mut args = unit.lines().filter_map(|line| line.strip_prefix("arg "));
    args.find(|arg| arg.strip_prefix("-x").is_some_and(|word| languages.iter().any(|l| l.word() == word)))?;
    args.next()
}

/// What makes diagnostics look as the terminal would have had them, where we stand between it and the compiler.
pub fn colour(family: Family) -> &'static str {
    match family {
        Family::Clang => "-fcolor-diagnostics",
        Family::Gcc => "-fdiagnostics-color=always",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invocation::Dialect;
    use crate::invocation::flags::{Form, LANGUAGE_FLAGS, LANGUAGE_VALUES, TABLE};

    fn invocation(line: &[&str]) -> Invocation {
        let args: Vec<OsString> = line.iter().map(OsString::from).collect();
        Invocation::parse(&args, Dialect { family: Family::Clang, is_cxx: true }, &|_| None)
            .unwrap_or_else(|bypass| panic!("{line:?}: {bypass:?}"))
    }

    fn facts() -> Facts {
        Facts {
            compiler: vec![Digest::of("clang")],
            cc1: Digest::of("cc1"),
            cwd: "/build".into(),
            variables: Vec::new(),
            source: Some(Digest::of("source")),
            inputs: Vec::new(),
            no_directories: Vec::new(),
            lists_bmis: false,
            bases: Bases::default(),
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
        let table = TABLE.iter().filter(|row| row.effect.is_keyed()).map(|row| {
            let value = if row.spelling.ends_with('=') || row.form != Form::Exact { "value" } else { "" };
            let space = if row.form == Form::Separate { " " } else { "" };
            format!("{}{space}{value}", row.spelling)
        });
        let language = LANGUAGE_FLAGS.iter().flat_map(|flag| [format!("-f{flag}"), format!("-fno-{flag}")]);
        let values = LANGUAGE_VALUES.iter().map(|flag| format!("-f{flag}=value"));
        for flag in table.chain(language).chain(values) {
            let words: Vec<&str> = flag.split(' ').collect();
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
        let changes: [fn(&mut Facts); 9] = [
            |facts| facts.compiler = vec![Digest::of("another")],
            |facts| facts.cc1 = Digest::of("another"),
            |facts| facts.cwd = "/elsewhere".into(),
            |facts| facts.variables = vec![("CPATH", "/opt".into())],
            |facts| facts.source = Some(Digest::of("edited")),
            |facts| facts.colour = true,
            |facts| facts.no_directories = vec![("/none".into(), false)],
            |facts| facts.bases = Bases::parse("/build").unwrap(),
            |facts| facts.inputs = vec![("list".into(), Digest::of("list"))],
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
