//! The scenes: between them they pass every point.

use std::fmt;

/// What a process does that passes points.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Scene {
    /// A launch that compiles, without a server.
    Miss,
    /// One that does not have to.
    Hit,
    /// A launch that compiles, and publishes.
    Publish,
    /// One that fetches what another machine published.
    Fetch,
    /// A launch whose server cannot be had.
    Away,
    /// The upload of what such a launch queued.
    Sync,
    /// A launch that leaves its upload to another process, and that one.
    Background,
    /// A launch that asks by way of an agent, and that one.
    Agent,
    /// A launch that notes what it used, and the publishing of that.
    Profile,
    /// A start from such a profile.
    Warm,
    /// Removal of what a store has.
    Clear,
    /// A trim of a store.
    Trim,
    /// A server that makes a store and comes up.
    Start,
    /// A server that takes a publish, and serves a fetch.
    Serve,
    /// A token is made.
    Token,
    /// A store is backed up.
    Backup,
    /// A backup becomes a store.
    Restore,
    /// An index is made again.
    Rebuild,
}

impl Scene {
    /// In the order of the table, where a point is told by the first scene that passes it.
    pub(crate) const ALL: [Self; 18] = [
        Self::Miss,
        Self::Hit,
        Self::Publish,
        Self::Fetch,
        Self::Away,
        Self::Sync,
        Self::Background,
        Self::Agent,
        Self::Profile,
        Self::Warm,
        Self::Clear,
        Self::Trim,
        Self::Start,
        Self::Serve,
        Self::Token,
        Self::Backup,
        Self::Restore,
        Self::Rebuild,
    ];

    /// Whether it is played without a server.
    pub(crate) fn is_local(self) -> bool {
        matches!(self, Self::Miss | Self::Hit | Self::Trim | Self::Clear)
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scene| scene.to_string() == name)
    }
}

/// The name that the table has for it.
impl fmt::Display for Scene {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}
