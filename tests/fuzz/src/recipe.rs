//! Recipes and include sets: the texts that keys are hashes of. What can be read is written again to the byte, and two texts
//! never stand for one thing.

use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use pcmcache::explain::{self, Parts};
use pcmcache_shared::recipe::{IncludeSet, Learnt, MAX_SUBJECT, Recipe, Unit, escape, subject, unescape};
use pcmcache_shared::{Digest, UnitKey};

pub(crate) fn run(input: &[u8]) {
    let escaped = escape(input);
    assert!(!escaped.contains(['\n', '\r', '\0']));
    assert_eq!(unescape(&escaped).as_deref(), Some(input));
    made_of(input);
    let Ok(text) = str::from_utf8(input) else { return };
    if let Some(bytes) = unescape(text) {
        assert_eq!(escape(&bytes), text, "another text stands for the same bytes");
    }
    if let Ok(set) = IncludeSet::parse(text) {
        assert_eq!(set.text(), text);
    }
    if let Some(subject) = subject(text) {
        assert!(subject.len() <= MAX_SUBJECT && !subject.contains('\n'));
    }
    let parts = Parts::parse(text);
    assert!(explain::differences(&parts, &parts, None).is_empty(), "what is equal does not differ");
    let Ok(recipe) = Recipe::parse(text.to_owned()) else { return };
    assert_eq!(recipe.text(), text);
    assert_eq!(recipe.unit_key(), UnitKey::of(recipe.unit_text()));
    assert!(text.starts_with(recipe.unit_text()));
    if let Ok(set) = recipe.include_set() {
        assert_eq!(IncludeSet::parse(&set.text()).as_ref(), Ok(&set));
    }
}

/// A recipe made of the input's lines is what it was made of.
fn made_of(input: &[u8]) {
    let mut unit = Unit::new();
    let mut set = IncludeSet::default();
    for line in input.split(|byte| *byte == b'\n') {
        let Some((kind, rest)) = line.split_first() else { continue };
        let path = Path::new(std::ffi::OsStr::from_bytes(rest));
        let name = || String::from_utf8_lossy(rest).into_owned();
        match kind {
            b'a' => unit.arg(rest),
            b's' => unit.source(path, Digest::of(rest)),
            b'e' => unit.env("CPATH", rest),
            b'c' => unit.cwd(path),
            b'B' => unit.bmi(&name(), Digest::of(rest)),
            // What is learnt has a name.
            _ if rest.is_empty() => {}
            b'f' => set.extend([Learnt::File(path.to_owned())]),
            b'n' => set.extend([Learnt::Absent(path.to_owned())]),
            b'p' => set.extend([Learnt::Passed(path.to_owned())]),
            b'y' => set.extend([Learnt::Present(path.to_owned())]),
            b'b' => set.extend([Learnt::Bmi(name())]),
            _ => {}
        }
    }
    assert_eq!(IncludeSet::parse(&set.text()).as_ref(), Ok(&set));
    let recipe = Recipe::new(&unit, &set, |learnt| Some(Digest::of(learnt.name()))).expect("all is there");
    let again = Recipe::parse(recipe.text().to_owned()).expect("what we write can be read");
    assert_eq!((&again, again.unit_key()), (&recipe, unit.key()));
    assert_eq!(again.include_set().as_ref(), Ok(&set));
}
