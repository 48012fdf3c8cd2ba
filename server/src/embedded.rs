//! (being written)
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::clock::Clock;

/// The embedded back end: implements `Blobs`, `Results` and `Leases` over one data directory.
#[derive(Debug)]
pub struct Embedded {}

/// Why a data directory cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another server has it.
    #[error("another server uses the data directory {}", .0.display())]
    InUse(PathBuf),
}

impl Embedded {
    /// Opens the data directory, creating it where it is missing. Blocks; call it before serving. Stages that a
    /// killed server left are swept.
    pub fn open(directory: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Self>, OpenError> {
        drop(clock);
        Err(OpenError::InUse(directory.to_owned()))
    }
}
