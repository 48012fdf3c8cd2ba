//! What disks, crashes and people do to files.

use std::path::Path;

/// A way to damage a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Harm {
    /// A bit in its middle is another.
    Flip,
    /// Its second half is gone.
    Cut,
    /// Something follows its end.
    Extend,
    /// Nothing is left but its name.
    Empty,
}

impl Harm {
    /// Every way.
    pub const ALL: [Self; 4] = [Self::Flip, Self::Cut, Self::Extend, Self::Empty];

    /// Does it to the file, in place.
    pub fn to(self, file: &Path) {
        let mut bytes = fs_err::read(file).expect("a file to harm");
        let half = bytes.len() / 2;
        match self {
            Self::Flip => {
                if let Some(byte) = bytes.get_mut(half) {
                    *byte ^= 0x10;
                }
            }
            Self::Cut => bytes.truncate(half),
            Self::Extend => bytes.extend_from_slice(&[0x55; 4096]),
            Self::Empty => bytes.clear(),
        }
        fs_err::write(file, bytes).expect("a file to harm");
    }
}
