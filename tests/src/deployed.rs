//! What lies in `deploy/`, read as those read it who deploy it.

use std::path::{Path, PathBuf};

/// A file of the project, by its path from the root.
pub fn file(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
    fs_err::canonicalize(path).expect("a file of the project")
}

/// Its text.
pub fn text(name: &str) -> String {
    fs_err::read_to_string(file(name)).expect("a text file of the project")
}

/// The text of this file with these words, each of which must be there, put into it: what an operator's editor does.
pub fn changed(name: &str, text: String, changes: &[(&str, &str)]) -> String {
    changes.iter().fold(text, |text, (from, to)| {
        assert!(text.contains(from), "{name} has no {from:?}");
        text.replace(from, to)
    })
}
