//! `pcmcache key`: the keys that results are signed with.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand};

use crate::signing::SigningKey;

/// What is asked for.
#[derive(Debug, Subcommand)]
pub enum Key {
    /// Make a key, write it to FILE, and print its public half
    ///
    /// Who builds for others names FILE in PCMCACHE_SIGN_KEY: what it publishes is signed. Who wants only that puts the
    /// public half into PCMCACHE_TRUSTED_KEYS. Only who holds FILE can sign; keep it where only trusted builds run.
    New(KeyFile),
    /// Print the public half of the key in FILE
    Show(KeyFile),
}

/// Where the key is.
#[derive(Debug, Args)]
pub struct KeyFile {
    /// The file with the private key (PKCS#8 in PEM), which only its owner may read
    file: PathBuf,
}

impl Key {
    /// Makes or reads the key; its public half goes to stdout, alone.
    pub fn run(&self) -> anyhow::Result<()> {
        let key = match self {
            Self::New(KeyFile { file }) => SigningKey::create(file).with_context(|| {
                format!("cannot make a key in {} (a file that is there is not replaced)", file.display())
            })?,
            Self::Show(KeyFile { file }) => SigningKey::read(file)?,
        };
        super::say(&format!("{}\n", key.public()))
    }
}
