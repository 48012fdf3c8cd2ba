//! The compiler's identity: the content of its binary and of every library it loads.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::{escape, unescape};

use super::{MAX_MEMO, id_of};
use crate::local::Store;
use crate::local::memo::Memo;
use crate::local::sealed::{self, Sealed};
use crate::os;

/// The identity of the compiler whose binary this is; `None` if it is no binary.
pub(super) fn identity(real: &Path, store: Option<&Store>, memo: &mut Memo) -> Option<Digest> {
    remembered_identity(real, store, memo).or_else(|| identify_anew(real, store, memo))
}

/// What decides, besides the libraries themselves, which libraries are loaded.
fn loader_facts(real: &Path) -> String {
    let variable = |name| std::env::var_os(name).map(|value| escape(value.as_bytes())).unwrap_or_default();
    let lib = real.parent().unwrap_or(Path::new("/")).join("../lib");
    let ids = [Path::new("/etc/ld.so.cache"), &lib].map(|path| id_of(path).map(|id| id.to_string()));
    format!("{:?} {} {}", ids, variable("LD_LIBRARY_PATH"), variable("LD_PRELOAD"))
}

fn identity_file(store: &Store, real: &Path) -> PathBuf {
    let text = format!("libraries\n{}\n{}", escape(real.as_os_str().as_bytes()), loader_facts(real));
    store.memo_file(&Digest::of(text))
}

/// The identity, if the libraries that were loaded last time are all as they were.
fn remembered_identity(real: &Path, store: Option<&Store>, memo: &mut Memo) -> Option<Digest> {
    let Sealed::Whole(body) = sealed::read(&identity_file(store?, real), MAX_MEMO) else { return None };
    let text = String::from_utf8(body).ok()?;
    for line in text.lines() {
        let (digest, path) = line.split_once(' ')?;
        let path = PathBuf::from(OsStr::from_bytes(&unescape(path)?));
        if memo.digest(&path).ok()?.1.to_string() != digest {
            return None;
        }
    }
    Some(identity_of(&text))
}

fn identify_anew(real: &Path, store: Option<&Store>, memo: &mut Memo) -> Option<Digest> {
    let mut magic = [0; 4];
    fs_err::File::open(real).ok()?.read_exact(&mut magic).ok()?;
    if magic != *b"\x7fELF" {
        return None;
    }
    let mut files = vec![real.to_owned()];
    files.extend(os::loaded_libraries(real).ok()?.unwrap_or_default());
    let mut text = String::new();
    for file in files {
        let file = fs_err::canonicalize(file).ok()?;
        let (_, digest) = memo.digest(&file).ok()?;
        let _ = writeln!(text, "{digest} {}", escape(file.as_os_str().as_bytes()));
    }
    if let Some(store) = store {
        let _ = store.seal(&identity_file(store, real), text.as_bytes());
    }
    Some(identity_of(&text))
}

/// Contents only, in the order of loading: two hosts with the same files in different places share.
fn identity_of(text: &str) -> Digest {
    let digests: Vec<&str> = text.lines().filter_map(|line| line.split(' ').next()).collect();
    Digest::of(digests.join("\n"))
}
