//! Proofs of hits: one that is damaged, or that says what is not so, proves nothing.
//!
//! The body of the file. `{here}` stands for a directory that is there, with a file `file` in it; `{action}` for the action.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use pcmcache::inputs::Inputs;
use pcmcache::invocation::{Dialect, Family, Invocation};
use pcmcache::local::memo::Memo;
use pcmcache::local::{Kind, Store, sealed};
use pcmcache::os::Moment;
use pcmcache_shared::recipe::unescape;
use pcmcache_shared::{ActionKey, IncludeSet, UnitKey};

use crate::scratch;

struct Stage {
    store: Store,
    here: PathBuf,
    invocation: Invocation,
    /// Where the proof lies.
    file: PathBuf,
}

pub(crate) fn run(input: &[u8]) {
    static STAGE: OnceLock<Stage> = OnceLock::new();
    let stage = STAGE.get_or_init(Stage::set);
    let Ok(text) = str::from_utf8(input) else { return };
    let here = stage.here.to_str().expect("text");
    let body = text.replace("{here}", here).replace("{action}", &ActionKey::of("action").to_string());
    sealed::write(&stage.file, body.as_bytes()).expect("a file");
    let Some(action) = stage.inputs().proven(&stage.store, UnitKey::of("unit"), &stage.invocation) else {
        return;
    };
    let (first, lines) = body.split_once('\n').expect("an action and lines");
    assert_eq!(first, action.to_string());
    for line in lines.lines() {
        let (kind, rest) = line.split_once(' ').expect("a kind");
        let is_file = || unescape(rest).is_some_and(|name| Path::new(os(&name)).is_file());
        match kind {
            "yes" => assert!(is_file(), "{rest} is no file"),
            "not" => assert!(!is_file(), "{rest} is a file"),
            "is" | "in" | "no" => {}
            other => panic!("it says '{other}'"),
        }
    }
}

fn os(bytes: &[u8]) -> &std::ffi::OsStr {
    std::os::unix::ffi::OsStrExt::from_bytes(bytes)
}

impl Stage {
    fn set() -> Self {
        let here = scratch::directory("proof");
        fs_err::write(here.join("file"), "text").expect("a file");
        let store = Store::open(&here.join("store")).expect("a store");
        let dialect = Dialect { family: Family::Clang, is_cxx: true };
        let invocation = Invocation::parse(&["-c".into(), "/a.cpp".into()], dialect, &|_| None);
        let invocation = invocation.expect("a plain command");
        let mut stage = Self { store, here, invocation, file: PathBuf::new() };
        let keys = (UnitKey::of("unit"), ActionKey::of("action"));
        stage.inputs().prove(&stage.store, keys, &IncludeSet::default(), &stage.invocation, Moment::now());
        stage.file = stage.store.inventory(Kind::Memo).pop().expect("a proof was written").path;
        stage
    }

    fn inputs(&self) -> Inputs {
        Inputs::new(Memo::new(None), self.here.clone())
    }
}
