//! A long and narrow road to a server: every byte takes its time, and only so many pass in a second.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// As many pieces are on their way in one direction of one connection; more wait where they are.
const UNDERWAY: usize = 256;

/// A running link.
#[derive(Debug, Clone)]
pub struct Link {
    address: SocketAddr,
    road: Arc<Road>,
}

#[derive(Debug)]
struct Road {
    server: SocketAddr,
    /// How long a byte takes in one direction.
    delay: Duration,
    connections: AtomicUsize,
    down: Lane,
    up: Lane,
}

/// One direction, which all connections share.
#[derive(Debug)]
struct Lane {
    bytes_per_second: u64,
    passed: AtomicU64,
    free: Mutex<Instant>,
}

impl Link {
    /// A link to `server`, on a free port of the loopback interface until the test program ends. There and back takes
    /// `round_trip`.
    pub fn start(server: SocketAddr, round_trip: Duration, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port");
        let lane = || Lane { bytes_per_second, passed: AtomicU64::new(0), free: Mutex::new(Instant::now()) };
        let delay = round_trip / 2;
        let road = Road { server, delay, connections: AtomicUsize::new(0), down: lane(), up: lane() };
        let road = Arc::new(road);
        let taken = Arc::clone(&road);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                taken.connections.fetch_add(1, Ordering::SeqCst);
                let road = Arc::clone(&taken);
                thread::spawn(move || {
                    let _ = road.serve(client);
                });
            }
        });
        Self { address, road }
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many connections were made over it.
    pub fn connections(&self) -> usize {
        self.road.connections.load(Ordering::SeqCst)
    }

    /// How many bytes went from clients to the server.
    pub fn up(&self) -> u64 {
        self.road.up.passed.load(Ordering::SeqCst)
    }

    /// How many bytes went from the server to clients.
    pub fn down(&self) -> u64 {
        self.road.down.passed.load(Ordering::SeqCst)
    }
}

impl Road {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        // Both sides greet each other before the first byte.
        thread::sleep(2 * self.delay);
        let server = TcpStream::connect(self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        thread::scope(|scope| {
            for (from, to, lane) in [(&client, &server, &self.up), (&server, &client, &self.down)] {
                let (put, take) = sync_channel(UNDERWAY);
                scope.spawn(move || self.pick_up(from, lane, &put));
                scope.spawn(move || deliver(&take, to, from, lane));
            }
        });
        Ok(())
    }

    /// Reads, and says when it arrives.
    fn pick_up(&self, mut from: &TcpStream, lane: &Lane, put: &SyncSender<(Instant, Vec<u8>)>) {
        let mut some = vec![0; 16 * 1024];
        while let Ok(count) = from.read(&mut some) {
            let due = lane.through(count) + self.delay;
            if put.send((due, some[..count].to_vec())).is_err() || count == 0 {
                return;
            }
        }
    }
}

/// Writes what was read once it is due. What is cut at one end is cut at the other.
fn deliver(take: &Receiver<(Instant, Vec<u8>)>, mut to: &TcpStream, from: &TcpStream, lane: &Lane) {
    while let Ok((due, bytes)) = take.recv() {
        thread::sleep(due.saturating_duration_since(Instant::now()));
        if bytes.is_empty() {
            let _ = to.shutdown(Shutdown::Write);
            return;
        }
        if to.write_all(&bytes).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
        lane.passed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
    }
    let _ = to.shutdown(Shutdown::Both);
}

impl Lane {
    /// When so many bytes are through, those before them first.
    fn through(&self, count: usize) -> Instant {
        let takes = Duration::from_secs_f64(count as f64 / self.bytes_per_second as f64);
        let mut free = self.free.lock().expect("the lane");
        *free = (*free).max(Instant::now()) + takes;
        *free
    }
}
