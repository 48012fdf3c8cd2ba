//! The repository behind a CI job: who its results are of, whichever job made them.

use std::fmt;
use std::str::FromStr;

use pcmcache_shared::{Digest, Writer};

/// A repository by the issuer's name in the OIDC file and the number that the issuer knows it by: names of repositories can be
/// given to others, numbers cannot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subject {
    /// The issuer's name.
    pub issuer: String,
    /// The repository's number.
    pub number: u64,
}

/// The text is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected an issuer's name and a repository's number, as in github:123456789")]
pub struct BadSubject;

impl Subject {
    /// The name under which its results can be taken back. It tells clients nothing of who it is.
    pub fn writer(&self) -> Writer {
        let digest =
            Digest::of(format!("pcmcache subject 1\n{}\n{}\n", self.issuer, self.number)).to_string();
        // Hexadecimal digits make a name; there is none that does not.
        let name = digest.get(..24).unwrap_or_default();
        format!("subject-{name}").parse().unwrap_or_else(|_| Writer::before_tokens())
    }
}

impl FromStr for Subject {
    type Err = BadSubject;

    fn from_str(text: &str) -> Result<Self, BadSubject> {
        let (issuer, number) = text.split_once(':').ok_or(BadSubject)?;
        let number = number.parse().map_err(|_| BadSubject)?;
        match issuer.is_empty() {
            true => Err(BadSubject),
            false => Ok(Self { issuer: issuer.to_owned(), number }),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.issuer, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_writer() {
        let subject: Subject = "github:123".parse().unwrap();
        assert_eq!(subject.to_string(), "github:123");
        assert_eq!(subject.writer(), subject.writer());
        assert_eq!(subject.writer().as_str().len(), "subject-".len() + 24);
        for other in ["github:124", "gitlab:123"] {
            assert_ne!(other.parse::<Subject>().unwrap().writer(), subject.writer());
        }
        for bad in ["", "github", ":1", "github:", "github:x", "github:-1", "github:1:2"] {
            assert_eq!(bad.parse::<Subject>(), Err(BadSubject), "{bad}");
        }
    }
}
