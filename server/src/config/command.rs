//! The words behind the program's name.

use std::process::ExitCode;

use clap::Subcommand;

use crate::maintenance::{BackupArgs, CheckArgs, RestoreArgs};
use crate::trust::TokenCommand;

/// What the program does other than to serve.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make, list and revoke tokens.
    #[command(subcommand)]
    Token(TokenCommand),

    /// Read all blobs again, and move aside what is no longer what it was. A server that runs is asked to do it.
    #[command(after_help = "\
Examples:
  pcmcache-server scrub
  pcmcache-server scrub --data-dir /var/lib/pcmcache

A server does the same by itself, slowly, over and over (--scrub-rate).
Exit status: 0 all is well, 1 something was damaged (it is named, and the next build makes it again), 2 cannot run.")]
    Scrub,

    /// Compare the index with the files, and its tables with each other. A server that runs is asked to do it.
    #[command(after_help = "\
Examples:
  pcmcache-server check               rows and sizes
  pcmcache-server check --full        all bytes too

Nothing is changed. Each finding says what is wrong, where, and what to do about it.
Exit status: 0 all is well, 1 there are findings, 2 cannot run.")]
    Check(CheckArgs),

    /// Make a backup of the store, or bring one up to date. A server that runs is asked to do it, and serves on meanwhile.
    #[command(after_help = "\
Examples:
  pcmcache-server backup /mnt/backup/pcmcache
  pcmcache-server check --full && pcmcache-server backup /mnt/backup/pcmcache

On the store's own file system blobs are linked: that costs no space, and helps against a lost index or an eviction, not
against the disk. Elsewhere they are copied and verified. It is the server that writes there, as its own user. Tokens
and certificates are no part of it. Killed half way, the earlier backup is still whole.
Exit status: 0 done, 1 done but for what was damaged, 2 cannot run.")]
    Backup(BackupArgs),

    /// Make a new store out of a backup, in the data directory.
    #[command(after_help = "\
Examples:
  pcmcache-server restore /mnt/backup/pcmcache --data-dir /var/lib/pcmcache

Then put the newest tokens.json there, and `pcmcache-server check --full`.
Exit status: 0 done, 1 done but for what was damaged, 2 cannot run.")]
    Restore(RestoreArgs),

    /// Make the index again from the journal and the blobs that are there. No server may have the store.
    #[command(after_help = "\
Examples:
  pcmcache-server rebuild-index --data-dir /var/lib/pcmcache

All results that were acknowledged answer again, with who published them; leases and the latest use times are
lost. The old index stays as index.redb.old until the next time.
Exit status: 0 done, 2 cannot run.")]
    RebuildIndex,
}

impl Command {
    /// The exit status when it cannot be done at all.
    pub fn failure(&self) -> ExitCode {
        match self {
            Self::Token(_) => ExitCode::FAILURE,
            // There 1 says that something was found.
            Self::Scrub | Self::Check(_) | Self::Backup(_) | Self::Restore(_) | Self::RebuildIndex => {
                ExitCode::from(2)
            }
        }
    }
}
