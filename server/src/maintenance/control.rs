//! The socket in the data directory through which a running server is asked: a task as a line of JSON, answered by lines
//! of JSON, the last of which says how it ended. Nothing of it is on the network; the directory's mode says who may ask.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use pcmcache_shared::disk;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use super::{Line, Store, Task, Told};

/// The longest line, in bytes.
const MAX_LINE: u64 = 64 * 1024;
/// How long one may take to say what is to be done.
const PATIENCE: Duration = Duration::from_secs(10);
/// How many may ask at once.
const MAX_ASKING: usize = 4;

/// The socket, until it is dropped.
#[derive(Debug)]
pub struct Control {
    path: PathBuf,
    _task: AbortOnDropHandle<()>,
}

impl Control {
    /// Listens in the directory of the store, which is this process's alone; what an earlier process left is removed.
    pub fn listen(directory: &Path, store: Store) -> io::Result<Self> {
        let path = socket_in(directory);
        match disk::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Ok(()) | Err(_) => {}
        }
        let listener = UnixListener::bind(&path)?;
        let task = AbortOnDropHandle::new(tokio::spawn(accept(listener, store)));
        Ok(Self { path, _task: task })
    }
}

impl Drop for Control {
    fn drop(&mut self) {
        let _ = disk::remove_file(&self.path);
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("control")
}

async fn accept(listener: UnixListener, store: Store) {
    let asking = Arc::new(Semaphore::new(MAX_ASKING));
    // Whoever still asks when the server goes down is dropped with this.
    let mut answering = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&asking).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let store = store.clone();
                while answering.try_join_next().is_some() {}
                answering.spawn(async move {
                    if let Err(error) = answer(stream, &store).await {
                        tracing::warn!(%error, "whoever asked at the control socket was not answered");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket does not accept");
                tokio::time::sleep(PATIENCE).await;
            }
        }
    }
}

async fn answer(stream: UnixStream, store: &Store) -> io::Result<()> {
    let (reader, mut writer) = stream.into_split();
    let mut text = String::new();
    let mut reader = BufReader::new(reader.take(MAX_LINE));
    tokio::time::timeout(PATIENCE, reader.read_line(&mut text))
        .await
        .map_err(|_| io::ErrorKind::TimedOut)??;
    let task: Task = serde_json::from_str(&text)?;
    tracing::info!(?task, "asked at the control socket");
    let (told, mut lines) = mpsc::channel(64);
    let store = store.clone();
    // It ends with whoever asked: the writing below fails, and this is dropped.
    let _working = AbortOnDropHandle::new(tokio::spawn(async move {
        let verdict = task.perform(&store, &Told(told.clone())).await;
        let _ = told.send(Line::End(verdict)).await;
    }));
    while let Some(line) = lines.recv().await {
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        writer.write_all(&text).await?;
    }
    Ok(())
}

/// The server that has the store in `directory`, if one does.
pub(super) async fn server(directory: &Path) -> anyhow::Result<UnixStream> {
    let path = socket_in(directory);
    UnixStream::connect(&path).await.with_context(|| {
        format!("a server has the store, and does not answer at {}: stop it and try again", path.display())
    })
}

/// Asks it, and passes on what it says.
pub(super) async fn ask(server: UnixStream, task: &Task, told: &mpsc::Sender<Line>) -> anyhow::Result<()> {
    let (reader, mut writer) = server.into_split();
    let mut text = serde_json::to_vec(task)?;
    text.push(b'\n');
    writer.write_all(&text).await?;
    let mut reader = BufReader::new(reader);
    loop {
        let mut text = String::new();
        (&mut reader).take(MAX_LINE).read_line(&mut text).await?;
        if text.is_empty() {
            anyhow::bail!("the server went away before it was done; see its log");
        }
        let line: Line = serde_json::from_str(&text)?;
        let is_end = matches!(line, Line::End(_));
        let _ = told.send(line).await;
        if is_end {
            return Ok(());
        }
    }
}
