//! Bytes that follow from a number, so that a history need not hold them.

use pcmcache_shared::Digest;
use serde::{Deserialize, Serialize};

use crate::Chance;

/// Some bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Content {
    /// What they follow from.
    pub seed: u64,
    /// How many.
    pub size: u64,
}

impl Content {
    /// The bytes.
    pub fn bytes(self) -> Vec<u8> {
        let mut chance = Chance::seeded(self.seed);
        let size = self.size as usize;
        let mut bytes = Vec::with_capacity(size + 8);
        while bytes.len() < size {
            bytes.extend_from_slice(&chance.below(u64::MAX).to_le_bytes());
        }
        bytes.truncate(size);
        bytes
    }

    /// Their name.
    pub fn digest(self) -> Digest {
        Digest::of(self.bytes())
    }

    /// The number that a text stands for.
    pub fn seed_of(text: &str) -> u64 {
        let digest = Digest::of(text);
        let (eight, _) = digest.as_bytes().split_at(8);
        u64::from_le_bytes(eight.try_into().expect("eight bytes"))
    }
}
