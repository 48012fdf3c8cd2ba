//! Whose credentials have ended, and whose results are taken back with them.

use std::collections::HashSet;
use std::sync::Arc;

use pcmcache_shared::Writer;

/// A set of writers. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WriterSet(Arc<HashSet<Writer>>);

impl WriterSet {
    /// Whether nobody is in it, which is how it is nearly always.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of these is in it.
    pub fn has_any<'a>(&self, writers: impl IntoIterator<Item = &'a Writer>) -> bool {
        !self.is_empty() && writers.into_iter().any(|writer| self.0.contains(writer))
    }

    /// All of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Writer> {
        self.0.iter()
    }
}

impl FromIterator<Writer> for WriterSet {
    fn from_iter<T: IntoIterator<Item = Writer>>(writers: T) -> Self {
        Self(Arc::new(writers.into_iter().collect()))
    }
}

/// Who was revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Revoked {
    /// Those whose credentials are good no more.
    pub refused: WriterSet,
    /// Those of them whose results are as if they were not there.
    pub hidden: WriterSet,
}
