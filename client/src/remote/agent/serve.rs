//! The agent's process, from its start by a launcher to its end.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pcmcache_shared::disk;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::Agent;
use super::flow::Flow;
use super::lanes::Lanes;
use super::life::Life;
use crate::local::Store;
use crate::os;
use crate::settings::Settings;

/// As many launchers are served at a time; others go their own way.
const CROWD: usize = 400;

/// The longest head of a request, in bytes.
const MOST_HEAD: usize = 64 * 1024;

/// How long what is under way may go on once the agent takes nothing new: as long as a lease is held at most.
const DRAIN: Duration = Duration::from_secs(1800);

/// The pause after a connection that could not be accepted: there are too many open files, and asking at once would spin.
const ACCEPT_AGAIN: Duration = Duration::from_millis(200);

/// Runs as the agent that `args` name, with the lock on its standard input.
pub fn run_as_agent(args: &[OsString]) -> u8 {
    os::leave_everything();
    let settings = Settings::load();
    u8::from(run(args, &settings).is_err())
}

fn run(args: &[OsString], settings: &Settings) -> io::Result<()> {
    let wrong = || io::Error::from(io::ErrorKind::InvalidInput);
    let store = Store::open(&settings.dir).map_err(io::Error::other)?;
    let url = settings.remote.clone().ok_or_else(wrong)?;
    let agent = || Agent::of(settings, &url, store.root());
    let named = agent();
    let asked_for = args.first().is_some_and(|name| *name == *named.serves.to_string());
    if !asked_for || !named.place.is_locked_by(io::stdin().as_fd()) {
        return Err(wrong());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(live(&named, settings, &url, || agent().serves == named.serves));
    // A name that is still being resolved does not keep it.
    runtime.shutdown_background();
    done
}

/// Serves until it is time to end. `unchanged`: all that its connections depend on is as it was.
async fn live(agent: &Agent, settings: &Settings, url: &str, unchanged: impl Fn() -> bool) -> io::Result<()> {
    let lanes = Lanes::open(url, &settings.papers).await.map_err(io::Error::other)?;
    agent.place.sweep();
    let listener = {
        let address = agent.place.address()?;
        // What lies there is an earlier agent's, which is gone: its lock is ours.
        let _ = disk::remove_file(address.path());
        UnixListener::bind(address.path())?
    };
    let ours = agent.place.socket_id();
    let life = Life::begin();
    let flow = Flow { serves: agent.serves, base: url.to_owned(), lanes, life: Arc::clone(&life) };
    let in_place = || ours.is_some() && agent.place.socket_id() == ours && unchanged();
    tokio::select! {
        never = accept_all(&listener, Arc::new(flow)) => match never {},
        () = life.end(settings.agent_idle, in_place) => {}
    }
    if agent.place.socket_id() == ours {
        agent.place.remove();
    }
    drop(listener);
    life.rest(DRAIN).await;
    Ok(())
}

async fn accept_all(listener: &UnixListener, flow: Arc<Flow>) -> Infallible {
    let crowd = Arc::new(Semaphore::new(CROWD));
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(_) => {
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let place = Arc::clone(&crowd).try_acquire_owned().ok().filter(|_| is_ours(&stream));
        if let Some(place) = place {
            let flow = Arc::clone(&flow);
            tokio::spawn(async move {
                let service = service_fn(|request| Arc::clone(&flow).answer(request));
                let serving = http1::Builder::new()
                    // The end of a launcher's side while it waits means that it is gone.
                    .half_close(false)
                    .max_buf_size(MOST_HEAD)
                    .serve_connection(TokioIo::new(stream), service);
                let _ = serving.await;
                drop(place);
            });
        }
    }
}

/// Whether this user is at the other end.
fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == os::user())
}
