//! What a person asks of a store: to scrub it, to check it, to back it up. It is done here if no server has the store, else by the server
//! that has it, which is asked through a socket in the data directory: who may write there may ask.

mod control;

use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

pub use self::control::Control;
use crate::cache::{Cache, Limits, Rooms};
use crate::clock::{SystemClock, SystemEntropy};
use crate::embedded::{self, BackedUp, Backup, Embedded, OpenError, Rebuilt};
use crate::scrub;

/// `pcmcache-server check`
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// Read all blobs too, and compare their bytes with their names; that takes as long as reading them does.
    #[arg(long)]
    pub full: bool,
}

/// What is to be done with a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// Read all blobs again, and move aside what is damaged.
    Scrub,
    /// Compare the index with the files, and its tables with each other.
    Check {
        /// All bytes too.
        full: bool,
    },
    /// Make a backup, or bring one up to date.
    Backup {
        /// In this directory.
        to: PathBuf,
        /// Of copies, also where links would do.
        copy: bool,
    },
}

/// `pcmcache-server backup`
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// Where to: a directory that is not there yet, is empty, or has an earlier backup, of which only what changed is
    /// written anew.
    #[arg(value_name = "DIR")]
    pub to: PathBuf,
    /// Copy blobs also where they could be linked, so that one bad block does not harm both.
    #[arg(long)]
    pub copy: bool,
}

/// `pcmcache-server restore`
#[derive(Debug, Clone, Args)]
pub struct RestoreArgs {
    /// The directory of the backup.
    #[arg(value_name = "DIR")]
    pub from: PathBuf,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Clean,
    /// Something is not.
    Found,
    /// It could not be done.
    Failed,
}

impl From<Verdict> for ExitCode {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Clean => Self::SUCCESS,
            Verdict::Found => Self::from(1),
            Verdict::Failed => Self::from(2),
        }
    }
}

/// What is said while it is done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Line {
    /// What was asked for: to standard output.
    Result(String),
    /// How far it is, and what went wrong: to standard error.
    About(String),
    /// It is over.
    End(Verdict),
}

/// A store to work on.
#[derive(Debug, Clone)]
pub struct Store {
    /// Its rules.
    pub cache: Arc<Cache>,
    /// Its rows and files.
    pub embedded: Arc<Embedded>,
}

/// Who listens; one who went away does not stop the work.
#[derive(Debug, Clone)]
struct Told(mpsc::Sender<Line>);

impl Told {
    async fn result(&self, text: String) {
        let _ = self.0.send(Line::Result(text)).await;
    }

    async fn about(&self, text: String) {
        let _ = self.0.send(Line::About(text)).await;
    }
}

impl Task {
    /// Does it.
    async fn perform(&self, store: &Store, told: &Told) -> Verdict {
        let outcome = match self {
            Self::Scrub => scrub(store, told).await,
            Self::Check { full } => check(store, told, *full).await,
            Self::Backup { to, copy } => backup(store, told, to, *copy).await,
        };
        match outcome {
            Ok(verdict) => verdict,
            Err(error) => {
                told.about(format!("pcmcache-server: {error:#}")).await;
                Verdict::Failed
            }
        }
    }
}

async fn scrub(store: &Store, told: &Told) -> anyhow::Result<Verdict> {
    let progress = |shard: u8, findings: &scrub::Findings| {
        // Whoever is too slow to read it all misses some of it.
        if shard % 16 == 15 {
            let (blobs, percent) = (findings.blobs, (u32::from(shard) + 1) * 100 / 256);
            let _ = told.0.try_send(Line::About(format!("{percent} %, {blobs} blobs")));
        }
    };
    let findings = scrub::once(&store.cache, progress).await?;
    for digest in &findings.damaged {
        told.result(format!("{digest}: was damaged, and moved aside; the next build makes it again")).await;
    }
    let (blobs, bytes, damaged) = (findings.blobs, findings.bytes, findings.damaged.len());
    told.result(format!("{blobs} blobs, {bytes} bytes, {damaged} of them damaged")).await;
    Ok(if damaged == 0 { Verdict::Clean } else { Verdict::Found })
}

async fn backup(store: &Store, told: &Told, to: &Path, copy: bool) -> anyhow::Result<Verdict> {
    let directory = to.to_owned();
    let backup = tokio::task::spawn_blocking(move || Backup::begin(&directory, copy)).await??;
    let backup = store.embedded.begin_backup(backup).await?;
    told.about("most blobs are there; now the rest and the rows".to_owned()).await;
    let done = {
        let _paused = store.cache.pause_removals().await;
        store.embedded.finish_backup(backup).await?
    };
    let BackedUp { results, blobs, new_blobs, damaged } = done;
    for digest in &damaged {
        told.result(format!("{digest}: is damaged, and not in the backup; `scrub` moves it aside")).await;
    }
    told.result(format!("{results} results, {blobs} blobs, {new_blobs} of them new")).await;
    Ok(if damaged.is_empty() { Verdict::Clean } else { Verdict::Found })
}

async fn check(store: &Store, told: &Told, full: bool) -> anyhow::Result<Verdict> {
    let _paused = store.cache.pause_removals().await;
    let checked = store.embedded.check(full).await?;
    for finding in &checked.findings {
        told.result(finding.clone()).await;
    }
    for note in &checked.notes {
        told.about(format!("note: {note}")).await;
    }
    let (results, blobs, found) = (checked.results, checked.blobs, checked.found);
    told.result(format!("{results} results, {blobs} blobs, {found} findings")).await;
    Ok(if found == 0 { Verdict::Clean } else { Verdict::Found })
}

/// Does it with the store in `directory`, or has the server do it that has the store.
pub fn run(directory: &Path, task: &Task) -> anyhow::Result<ExitCode> {
    if !directory.join("index.redb").exists() {
        anyhow::bail!("there is no store in {} (--data-dir)", directory.display());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let verdict = runtime.block_on(async {
        let (told, mut lines) = mpsc::channel(64);
        let printing = tokio::task::spawn_blocking(move || {
            let mut verdict = Verdict::Failed;
            while let Some(line) = lines.blocking_recv() {
                verdict = print(&line).unwrap_or(verdict);
            }
            verdict
        });
        match control::server(directory).await {
            Ok(server) => control::ask(server, task, &told).await?,
            // Only now: a directory that is in use is waited for.
            Err(no_answer) => match open(directory) {
                Ok(store) => {
                    let verdict = task.perform(&store, &Told(told.clone())).await;
                    let _ = told.send(Line::End(verdict)).await;
                }
                Err(OpenError::InUse(_)) => return Err(no_answer),
                Err(error) => return Err(error).context("cannot use the data directory (--data-dir)"),
            },
        }
        drop(told);
        Ok(printing.await?)
    })?;
    Ok(verdict.into())
}

/// Makes a store in `directory` out of a backup.
pub fn restore(from: &Path, directory: &Path) -> anyhow::Result<ExitCode> {
    let restored = embedded::restore(from, directory, &SystemClock::new()).context("cannot restore")?;
    for digest in &restored.damaged {
        print(&Line::Result(format!("{digest}: is damaged in the backup, and left out")));
    }
    tell_of(&restored.rebuilt);
    let about = "note: tokens are no part of a backup; put the newest tokens.json into the data directory, or who was \
                 revoked is so no longer";
    print(&Line::About(about.to_owned()));
    Ok(if restored.damaged.is_empty() { Verdict::Clean } else { Verdict::Found }.into())
}

/// Makes the index of the store in `directory` again.
pub fn rebuild_index(directory: &Path) -> anyhow::Result<ExitCode> {
    if !directory.join("results").is_dir() {
        anyhow::bail!("there is no store in {} (--data-dir)", directory.display());
    }
    let rebuilt =
        embedded::rebuild_index(directory, &SystemClock::new()).context("cannot rebuild the index")?;
    tell_of(&rebuilt);
    Ok(ExitCode::SUCCESS)
}

fn tell_of(rebuilt: &Rebuilt) {
    let Rebuilt { results, left_out, broken } = rebuilt;
    print(&Line::Result(format!("{results} results")));
    if *left_out > 0 {
        print(&Line::About(format!(
            "note: {left_out} more are left out, for their blobs are gone, as eviction leaves it"
        )));
    }
    if *broken > 0 {
        print(&Line::About(format!(
            "note: {broken} lines of the journal cannot be read; a kill leaves one, cut off"
        )));
    }
}

fn print(line: &Line) -> Option<Verdict> {
    // Whoever reads it may be gone; the work goes on.
    let _ = match line {
        Line::Result(text) => writeln!(io::stdout(), "{text}"),
        Line::About(text) => writeln!(io::stderr(), "{text}"),
        Line::End(verdict) => return Some(*verdict),
    };
    None
}

fn open(directory: &Path) -> Result<Store, OpenError> {
    let clock = Arc::new(SystemClock::new());
    let embedded = Embedded::open(directory, clock.clone())?;
    let rooms = Rooms {
        blobs: embedded.clone(),
        results: embedded.clone(),
        profiles: embedded.clone(),
        leases: embedded.clone(),
        clock,
        entropy: Arc::new(SystemEntropy),
    };
    Ok(Store { cache: Cache::new(rooms, Limits::default()), embedded })
}
