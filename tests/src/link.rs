//! A road to a server: long, narrow, or with an accident on it. Bytes pass as they are; what they say is looked at only to
//! know where in a request, or in its answer, something is to happen.

mod course;
pub mod fault;

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use course::{Course, Step};
use fault::{Fault, Script, What};
use rustix::net::connect_unspec;

/// As many pieces are on their way in one direction of one connection; more wait where they are.
const UNDERWAY: usize = 256;
/// How long a request waits for a later one to be answered.
const OVERTAKEN_WITHIN: Duration = Duration::from_secs(3);
/// How long the copy of a request waits for its answer.
const COPY_ANSWERED_WITHIN: Duration = Duration::from_millis(500);

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
    delay: Mutex<Duration>,
    connections: AtomicUsize,
    down: Lane,
    up: Lane,
    /// Nothing passes, and nothing is lost.
    is_parted: AtomicBool,
    script: Script,
}

/// One direction, which all connections share.
#[derive(Debug)]
struct Lane {
    bytes_per_second: AtomicU64,
    passed: AtomicU64,
    free: Mutex<Instant>,
}

/// What one direction of one connection carries.
enum Freight {
    Bytes(Instant, Vec<u8>),
    /// One side has said all.
    Fin,
    Cut,
    Reset,
    /// Nothing comes any more, and nobody is told.
    Lost,
}

impl Link {
    /// A link to `server`, on a free port of the loopback interface until the test program ends. There and back takes
    /// `round_trip`.
    pub fn start(server: SocketAddr, round_trip: Duration, bytes_per_second: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port");
        let lane = || Lane {
            bytes_per_second: bytes_per_second.into(),
            passed: AtomicU64::new(0),
            free: Mutex::new(Instant::now()),
        };
        let road = Arc::new(Road {
            server,
            delay: Mutex::new(round_trip / 2),
            connections: AtomicUsize::new(0),
            down: lane(),
            up: lane(),
            is_parted: AtomicBool::new(false),
            script: Script::default(),
        });
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

    /// One that is as short and as wide as it can be.
    pub fn near(server: SocketAddr) -> Self {
        Self::start(server, Duration::ZERO, u64::MAX)
    }

    /// Where it begins.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
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

    /// From now on this happens on it.
    pub fn plays(&self, fault: Fault) {
        self.road.script.play(fault);
    }

    /// How often it happened.
    pub fn befell(&self) -> usize {
        self.road.script.befell()
    }

    /// From now on no byte passes, in either direction, and nothing is closed: a cable was pulled.
    pub fn part(&self) {
        self.road.is_parted.store(true, Ordering::SeqCst);
    }

    /// From now on it is as short and as wide as it can be, and nothing happens on it. What stood still goes on; what was
    /// lost stays lost.
    pub fn heal(&self) {
        self.road.script.end();
        *self.road.delay.lock().expect("the delay") = Duration::ZERO;
        for lane in [&self.road.up, &self.road.down] {
            lane.bytes_per_second.store(u64::MAX, Ordering::SeqCst);
            *lane.free.lock().expect("the lane") = Instant::now();
        }
        self.road.is_parted.store(false, Ordering::SeqCst);
    }
}

impl Road {
    fn serve(&self, client: TcpStream) -> io::Result<()> {
        // Both sides greet each other before the first byte.
        thread::sleep(2 * self.delay());
        self.stand_while_parted();
        let course = Course::new(&self.script);
        match course.begins() {
            Some(What::Cut) => return Ok(()),
            Some(What::Reset) => return connect_unspec(&client).map_err(io::Error::from),
            _ => {}
        }
        let server = TcpStream::connect(self.server)?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let (client, server, course) = (&client, &server, &course);
        thread::scope(|scope| {
            let (put, take) = sync_channel(UNDERWAY);
            let go = move |bytes: &[u8], put: &_| self.go_up(course, client, bytes, put);
            scope.spawn(move || pick_up(client, put, go, || course.loses_up()));
            scope.spawn(move || self.deliver(take, server, client, &self.up));
            let (put, take) = sync_channel(UNDERWAY);
            let go = move |bytes: &[u8], put: &_| self.go(course.down(bytes), &self.down, put);
            scope.spawn(move || pick_up(server, put, go, || course.loses_down()));
            scope.spawn(move || self.deliver(take, client, server, &self.down));
        });
        Ok(())
    }

    fn delay(&self) -> Duration {
        *self.delay.lock().expect("the delay")
    }

    fn stand_while_parted(&self) {
        while self.is_parted.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// What goes up may be held, doubled or answered here. `None`: nothing more goes this way.
    fn go_up(
        &self,
        course: &Course,
        mut client: &TcpStream,
        bytes: &[u8],
        put: &SyncSender<Freight>,
    ) -> Option<()> {
        for step in course.up(bytes) {
            match step {
                Step::Behind(whole) => {
                    self.script.wait_for_another_answer(OVERTAKEN_WITHIN);
                    self.go(vec![Step::Pass(whole)], &self.up, put)?;
                }
                Step::Twice(whole, is_first) => {
                    if is_first {
                        let _ = self.copy(&whole);
                    }
                    self.go(vec![Step::Pass(whole.clone())], &self.up, put)?;
                    if !is_first {
                        let _ = self.copy(&whole);
                    }
                }
                Step::Answered(answer) => {
                    let _ = client.write_all(answer.as_bytes());
                    self.go(vec![Step::Act(What::Cut)], &self.up, put)?;
                }
                step => self.go(vec![step], &self.up, put)?,
            }
        }
        Some(())
    }

    /// Sends the same request once more, on another connection.
    fn copy(&self, whole: &[u8]) -> io::Result<()> {
        let mut second = TcpStream::connect(self.server)?;
        second.set_read_timeout(Some(COPY_ANSWERED_WITHIN))?;
        second.write_all(whole)?;
        second.read(&mut [0; 4096]).map(drop)
    }

    fn go(&self, steps: Vec<Step>, lane: &Lane, put: &SyncSender<Freight>) -> Option<()> {
        for step in steps {
            let freight = match step {
                Step::Pass(bytes) => Freight::Bytes(lane.through(bytes.len()) + self.delay(), bytes),
                Step::Act(What::Cut) => Freight::Cut,
                Step::Act(What::Reset) => Freight::Reset,
                Step::Act(_) | Step::Behind(_) | Step::Twice(..) | Step::Answered(_) => continue,
            };
            let is_end = matches!(freight, Freight::Cut | Freight::Reset);
            put.send(freight).ok()?;
            if is_end {
                return None;
            }
        }
        Some(())
    }

    /// Writes what was read once it is due. What is cut at one end is cut at the other.
    fn deliver(&self, take: Receiver<Freight>, mut to: &TcpStream, from: &TcpStream, lane: &Lane) {
        while let Ok(freight) = take.recv() {
            self.stand_while_parted();
            match freight {
                Freight::Bytes(due, bytes) => {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    self.stand_while_parted();
                    if to.write_all(&bytes).is_err() {
                        break;
                    }
                    lane.passed.fetch_add(bytes.len() as u64, Ordering::SeqCst);
                }
                Freight::Fin => {
                    let _ = to.shutdown(Shutdown::Write);
                    return;
                }
                Freight::Cut => break,
                Freight::Lost => return,
                Freight::Reset => {
                    let _ = connect_unspec(to);
                    let _ = connect_unspec(from);
                    break;
                }
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    }
}

/// Reads, and lets it go its way.
fn pick_up(
    mut from: &TcpStream,
    put: SyncSender<Freight>,
    go: impl Fn(&[u8], &SyncSender<Freight>) -> Option<()>,
    is_lost: impl Fn() -> bool,
) {
    let mut some = vec![0; 16 * 1024];
    loop {
        let read = from.read(&mut some);
        let end = match read {
            Ok(0) => Freight::Fin,
            Err(_) => Freight::Cut,
            Ok(count) if go(&some[..count], &put).is_none() => return,
            Ok(_) => continue,
        };
        // Who takes it may be gone.
        let _ = put.send(if is_lost() { Freight::Lost } else { end });
        return;
    }
}

impl Lane {
    /// When so many bytes are through, those before them first.
    fn through(&self, count: usize) -> Instant {
        let rate = self.bytes_per_second.load(Ordering::SeqCst);
        let takes = Duration::from_secs_f64(count as f64 / rate as f64);
        let mut free = self.free.lock().expect("the lane");
        *free = (*free).max(Instant::now()) + takes;
        *free
    }
}
