//! A server in a hurry: its ten minutes are seconds. What it does in them is what it does.

use std::future;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use pcmcache_server::clock::{Clock, Moment};
use pcmcache_server::{Config, Server, log};
use tokio::net::TcpListener;
use tokio::time::Instant;

/// Serves as the flags say, by a clock that goes `rate` times as fast, until it is killed.
pub fn serve(config: &Config, rate: u32) -> ExitCode {
    log::start(config).expect("the log");
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind(config.listen).await.expect("a port");
        let address = listener.local_addr().expect("the port");
        let clock = Hurried { start: Instant::now(), rate };
        let server = Server::open_by(config, Arc::new(clock)).await.expect("a store");
        writeln!(std::io::stdout(), "listening on http://{address}").expect("stdout");
        server.run(listener, future::pending()).await;
    });
    ExitCode::SUCCESS
}

/// The system's monotonic clock, faster.
#[derive(Debug)]
struct Hurried {
    start: Instant,
    rate: u32,
}

#[async_trait::async_trait]
impl Clock for Hurried {
    fn now(&self) -> Moment {
        Moment::default() + self.start.elapsed() * self.rate
    }

    /// The calendar is the one that tokens and their makers go by.
    fn unix_s(&self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }

    async fn sleep_until(&self, moment: Moment) {
        let after = moment.since(Moment::default()) / self.rate;
        match self.start.checked_add(after) {
            Some(then) => tokio::time::sleep_until(then).await,
            None => future::pending().await,
        }
    }
}
