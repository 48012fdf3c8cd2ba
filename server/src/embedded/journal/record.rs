//! A line of the journal.

use std::io;

use pcmcache_shared::{ActionKey, Digest, ProfileName, Scope, UnitKey, Writer};
use serde::{Deserialize, Serialize};

use crate::profiles::StoredProfile;
use crate::results::StoredResult;

/// The longest line that is read, in bytes; what we write is far below.
pub(in crate::embedded) const MAX_LINE: u64 = 1024 * 1024;
/// How many hexadecimal digits of the line's SHA-256 stand before it: against a disk, not against a forger.
const SUM: usize = 16;

/// What a line says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(in crate::embedded) enum Record {
    /// A result was created, or is there.
    Result { scope: Scope, action: ActionKey, stored: Box<StoredResult> },
    /// The sets of a unit, the last learnt one first.
    Sets { scope: Scope, unit: UnitKey, sets: Vec<Digest> },
    /// The newest results under a set, newest first.
    Under { scope: Scope, unit: UnitKey, set: Digest, actions: Vec<ActionKey> },
    /// Who put a blob where.
    Upload { digest: Digest, scope: Scope, writer: Writer, size: u64 },
    /// When a result was used last, in the store's own seconds.
    Used { scope: Scope, action: ActionKey, at_s: u64 },
    /// Eviction passes over it.
    Kept { scope: Scope, action: ActionKey },
    /// A token that was exchanged, and until when it would be good.
    Spent { name: Digest, until_s: u64 },
    /// A profile, in the place of any of that name; its keys follow.
    Profile { scope: Scope, name: ProfileName, profile: StoredProfile },
    /// The next keys of a profile.
    InProfile { scope: Scope, name: ProfileName, actions: Vec<ActionKey> },
    /// When a profile was used last, in the store's own seconds.
    UsedProfile { scope: Scope, name: ProfileName, at_s: u64 },
    /// A number of the store: its age, the last fence.
    Number { name: String, value: u64 },
}

impl Record {
    pub(in crate::embedded) fn write(&self, writer: &mut (impl io::Write + ?Sized)) -> io::Result<()> {
        let text = serde_json::to_vec(self)?;
        let sum = Digest::of(&text).to_string();
        writer.write_all(sum.get(..SUM).unwrap_or_default().as_bytes())?;
        writer.write_all(b" ")?;
        writer.write_all(&text)?;
        writer.write_all(b"\n")
    }

    /// The line's record, if it is whole and matches its sum.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let (sum, rest) = line.strip_suffix(b"\n")?.split_at_checked(SUM)?;
        let text = rest.strip_prefix(b" ")?;
        let is_right = Digest::of(text).to_string().get(..SUM)?.as_bytes() == sum;
        is_right.then(|| serde_json::from_slice(text).ok()).flatten()
    }
}
