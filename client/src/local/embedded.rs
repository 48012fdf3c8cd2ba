//! BMIs that we made, with the sources embedded: what is known of each besides its bytes.
//!
//! An entry outlives the blob of its BMI, which may lie in a build directory for long: a trim leaves it alone for months.
//! A BMI without an entry here is foreign: what an importer of it compiles to may depend on files that are in no key.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use pcmcache_shared::Digest;
use pcmcache_shared::recipe::{escape, unescape};

use super::{Kind, Store};

/// The largest entry, in bytes.
const MAX_ENTRY: u64 = 1024 * 1024;

/// What is known of a BMI of ours.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Embedded {
    /// The modules it loads, transitively; an empty name is one that is not known.
    pub imports: Vec<String>,
    /// The header it was made of, if it is a header unit: an import of it begins with a search for that header. Where
    /// several could be it, all of them.
    pub headers: Vec<PathBuf>,
}

impl Embedded {
    fn text(&self) -> String {
        let imports = self.imports.iter().map(|module| format!("import {}\n", escape(module.as_bytes())));
        let header =
            self.headers.iter().map(|path| format!("header {}\n", escape(path.as_os_str().as_bytes())));
        imports.chain(header).collect()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut embedded = Self::default();
        for line in text.lines() {
            let (kind, rest) = line.split_once(' ')?;
            let rest = String::from_utf8(unescape(rest)?).ok()?;
            match kind {
                "import" => embedded.imports.push(rest),
                "header" => embedded.headers.push(PathBuf::from(rest)),
                _ => return None,
            }
        }
        Some(embedded)
    }
}

impl Store {
    /// Notes that the BMI of this digest has its sources embedded, and what is known of it.
    pub fn mark_embedded(&self, bmi: Digest, embedded: &Embedded) -> io::Result<()> {
        if self.embedded(bmi).as_ref() == Some(embedded) {
            return Ok(());
        }
        self.write_sealed(Kind::Embedded, &bmi.to_string(), embedded.text().as_bytes())
    }

    /// What is known of the BMI of this digest, if it is one of ours.
    pub fn embedded(&self, bmi: Digest) -> Option<Embedded> {
        let body = self.read_sealed(&self.entry(Kind::Embedded, &bmi.to_string()), MAX_ENTRY)?;
        Embedded::parse(std::str::from_utf8(&body).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_survives_its_text() {
        let embedded = Embedded {
            imports: vec!["m:part".to_owned(), "std".to_owned()],
            headers: vec!["a b/x.h".into()],
        };
        assert_eq!(Embedded::parse(&embedded.text()), Some(embedded));
        assert_eq!(Embedded::parse(""), Some(Embedded::default()));
        assert_eq!(Embedded::parse("other x\n"), None);
    }
}
