//! Command lines of compilers and scanners, with their response files. What is accepted is changed into nothing else: the
//! words that are kept stand in their order, and the command that is run instead means the same once more.
//!
//! The first part is the driver's name and its arguments, a line each; each other one is a response file, its name first.

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::Path;

use pcmcache::invocation::flags::short_form;
use pcmcache::invocation::scan::Scan;
use pcmcache::invocation::{Arg, Bypass, Dialect, Family, Invocation, Kind, response};
use pcmcache_shared::Role;

use crate::parts;

pub(crate) fn run(input: &[u8]) {
    let Ok(_) = str::from_utf8(input) else { return };
    let parts = parts::of(input);
    let text = |part: &[u8]| String::from_utf8_lossy(part).into_owned();
    let files: HashMap<String, String> = parts[1..]
        .iter()
        .map(|part| parts::first_line(part))
        .map(|(name, content)| (text(name), text(content)))
        .collect();
    let read = |path: &Path| files.get(path.to_str()?).cloned();
    let (driver, args) = parts::first_line(parts[0]);
    let args: Vec<OsString> = text(args).lines().map(OsString::from).collect();
    let dialect = |family, is_cxx| Dialect { family, is_cxx };
    let dialect = match driver {
        b"clang++" => dialect(Family::Clang, true),
        b"clang" => dialect(Family::Clang, false),
        b"g++" => dialect(Family::Gcc, true),
        b"gcc" => dialect(Family::Gcc, false),
        _ => return scan(&args, &read),
    };
    match Invocation::parse(&args, dialect, &read) {
        Ok(invocation) => {
            in_order(&invocation, &args, &read);
            means_the_same(&invocation, |again| Invocation::parse(again, dialect, &read));
        }
        Err(bypass) => assert!(!bypass.reason.is_empty() && bypass.reason != "internal", "{bypass:?}"),
    }
}

fn scan(args: &[OsString], read: &dyn Fn(&Path) -> Option<String>) {
    let Ok(scan) = Scan::parse(args, read) else { return };
    assert_eq!(scan.own.last().map(OsString::as_os_str), Some("--".as_ref()));
    assert!(scan.compiler.is_absolute() && scan.invocation.kind == Kind::Scan);
    means_the_same(&scan.invocation, |again| {
        let command = scan.own.iter().cloned().chain([scan.compiler.clone().into()]);
        Scan::parse(&command.chain(again.iter().cloned()).collect::<Vec<_>>(), read)
            .map(|scan| scan.invocation)
    });
}

/// What goes to the compiler stands in the order in which it was given.
fn in_order(invocation: &Invocation, args: &[OsString], read: &dyn Fn(&Path) -> Option<String>) {
    let given = response::expand(args, read).expect("it was expanded before");
    let mut given = given.iter().map(|word| word.text.as_str());
    for arg in &invocation.args {
        let words = match arg {
            Arg::Source => vec![invocation.source.to_str().expect("text").to_owned()],
            other => other.words(),
        };
        let (first, joined) = (&words[0], words.concat());
        let found = given.find(|given| {
            *given == first || *given == joined || short_form(given).is_some_and(|short| short == *first)
        });
        let found = found.unwrap_or_else(|| panic!("{arg:?} is not where it was given"));
        if words.len() > 1 && *found != joined {
            assert_eq!(given.next(), Some(words[1].as_str()), "{arg:?} has another value");
        }
    }
}

/// The command that is run, here with its outputs in their own places, is read as what it was made of.
fn means_the_same(invocation: &Invocation, parse: impl Fn(&[OsString]) -> Result<Invocation, Bypass>) {
    let again = command(invocation);
    let mut read = match parse(&again) {
        Ok(read) => read,
        // An output that is named after its source goes unseen, and is refused as an argument.
        Err(Bypass { reason: "time-macro" | "computed-probe", .. }) => return,
        Err(bypass) => panic!("{again:?} of {invocation:?}: {bypass:?}"),
    };
    // That the name came from a module map does not go with the command.
    if let (Some(bmi), Some(before)) = (&mut read.bmi, &invocation.bmi) {
        bmi.restat = before.restat;
    }
    assert_eq!(&read, invocation, "by {again:?}");
}

fn command(invocation: &Invocation) -> Vec<OsString> {
    let mut words: Vec<OsString> = Vec::new();
    for arg in &invocation.args {
        words.extend(arg.words().into_iter().map(OsString::from));
        if *arg == Arg::Source {
            if invocation.says_language {
                words.extend(["-x".into(), invocation.language.word().into()]);
            }
            words.push(invocation.source.clone().into());
        }
    }
    let bmi = invocation.bmi.as_ref().map(|bmi| bmi.path.as_path());
    let main = invocation.object.as_deref().or(invocation.scanned.as_deref()).or(bmi);
    words.extend(["-o".into(), main.expect("something is made").into()]);
    if let (Some(_), Some(bmi)) = (&invocation.object, bmi) {
        words.push(format!("-fmodule-output={}", bmi.display()).into());
    }
    if let Some(depfile) = &invocation.depfile {
        words.push(if depfile.system_headers { "-MD" } else { "-MMD" }.into());
        words.extend(["-MF".into(), depfile.path.clone().into()]);
        if let Some((flag, target)) = &depfile.target {
            words.extend([(*flag).into(), target.into()]);
        }
        words.extend(depfile.phony.then(|| "-MP".into()));
    }
    for extra in invocation.extras.iter().filter(|extra| extra.role == Role::SerializedDiagnostics) {
        words.extend(["--serialize-diagnostics".into(), extra.path.clone().into()]);
    }
    words
}
