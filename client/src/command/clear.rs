//! `pcmcache clear`: an empty store.

use anyhow::Context;

use crate::settings::Settings;

/// Removes everything that is stored. Counters stay (`stats --zero`), and so do running launchers' locks.
pub fn run(settings: &Settings) -> anyhow::Result<()> {
    let store = super::store(settings)?;
    store.clear().with_context(|| format!("cannot clear {}", store.root().display()))
}
