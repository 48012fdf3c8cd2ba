//! Base directories: what is spelled for other checkouts, spelled back, is what it was.
//!
//! The first line is the list, the second the directory a command runs in; the rest is a text, and each line of it a path.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use pcmcache::bases::{Bases, plain};

use crate::parts;

pub(crate) fn run(input: &[u8]) {
    let (list, rest) = parts::first_line(input);
    let (cwd, text) = parts::first_line(rest);
    let Ok(list) = str::from_utf8(list) else { return };
    let Ok(bases) = Bases::parse(list) else { return };
    assert!(bases.directories().iter().all(|directory| directory.starts_with('/') && directory.len() > 1));
    let cwd = Path::new(OsStr::from_bytes(cwd));
    let bases = bases.at(cwd);
    if let Some(spelled) = bases.spell_text(text) {
        assert_eq!(bases.text(spelled), text, "a text is not what it was");
    }
    bases.may_be_read_by_name(text, text.len().is_multiple_of(2));
    for line in text.split(|byte| *byte == b'\n') {
        let path = Path::new(OsStr::from_bytes(line));
        // What looks spelled already is no name that a compiler gives.
        if !line.starts_with(b"<base") {
            assert_eq!(bases.path(&bases.spell_file(path)).as_os_str(), path.as_os_str());
            assert_eq!(bases.path(&bases.spell_path(path)).as_os_str(), path.as_os_str());
        }
        let absolute = plain(&Path::new("/").join(path));
        assert!(absolute.is_absolute() && !absolute.as_os_str().as_bytes().ends_with(b"/.."));
        bases.contain(cwd, path);
    }
}
