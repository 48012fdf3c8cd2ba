//! `tests/bench/packing`: whether it pays to pack what travels, and how: BMIs and objects as they are, and as frames of zstd,
//! over links of several speeds. Who sends packs while it sends, who receives unpacks and hashes while it comes. What comes of
//! that in builds is a row of `tests/bench/run`.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use pcmcache_shared::digest::{CHUNK, Hashing};
use pcmcache_tests::link::Link;
use pcmcache_tests::scratch::files_below;
use pcmcache_tests::tool::CLANG;
use pcmcache_tests::{Machine, Scratch, atlas};
use rustix::time::{ClockId, clock_gettime};
use zstd::stream::{read::Decoder, write::Encoder};

const STD: &str = "/usr/lib/llvm-22/share/libc++/v1/std.cppm";
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// Bytes a second.
const LINKS: [(&str, u64); 3] = [("100 Mb/s", 12_500_000), ("1 Gb/s", 125_000_000), ("no bound", u64::MAX)];
/// As they are, and at these levels.
const LEVELS: [Option<i32>; 5] = [None, Some(-5), Some(1), Some(3), Some(6)];
const ROUNDS: usize = 5;

fn main() {
    let rounds = std::env::args().nth(1).map_or(ROUNDS, |rounds| rounds.parse().expect("a number of rounds"));
    fetches(&Scratch::new("bench-packing"), rounds);
}

/// One file, and many, by every level over every link.
fn fetches(scratch: &Scratch, rounds: usize) {
    for (name, files) in [("std.pcm", vec![std_pcm(scratch)]), ("the results of a project", results(scratch))]
    {
        let size: usize = files.iter().map(Vec::len).sum();
        println!("\n{name}: {} files, {:.1} MB", files.len(), size as f64 / 1e6);
        for level in LEVELS {
            let (packed, cpu_in, cpu_out) = costs(&files, level);
            print!(
                "  {:<8} {:6.2} MB  {:.2}x  in {cpu_in:.3} s  out {cpu_out:.3} s   ",
                named(level),
                packed as f64 / 1e6,
                size as f64 / packed as f64
            );
            for (link, bytes_per_second) in LINKS {
                let sender = Sender::start(files.clone(), level);
                let link_to = Link::start(sender, ROUND_TRIP, bytes_per_second);
                let mut took: Vec<_> = (0..rounds).map(|_| fetch(link_to.address(), level, size)).collect();
                took.sort();
                print!("  {link}: {:.2} s", took[took.len() / 2].as_secs_f64());
                let _ = io::stdout().flush();
            }
            println!();
        }
    }
}

fn named(level: Option<i32>) -> String {
    level.map_or_else(|| "as it is".to_owned(), |level| format!("zstd {level}"))
}

fn std_pcm(scratch: &Scratch) -> Vec<u8> {
    let machine = Machine::new(scratch, "std");
    let embed = ["-Xclang", "-fmodules-embed-all-files", "-Wno-reserved-module-identifier"];
    let compile = ["-std=c++23", "-stdlib=libc++", "--precompile", STD, "-o", "std.pcm"];
    machine.start(CLANG, embed.into_iter().chain(compile)).finish().ok();
    read(&machine.build().join("std.pcm"))
}

/// What a build of the project leaves behind: BMIs, objects, depfiles.
fn results(scratch: &Scratch) -> Vec<Vec<u8>> {
    let machine = Machine::new(scratch, "project");
    atlas::configure_bare(&machine, &atlas::source()).ok();
    atlas::build(&machine).finish_within(Duration::from_secs(600)).ok();
    let is_result = |path: &Path| {
        path.extension().is_some_and(|extension| ["pcm", "o", "d", "ddi"].iter().any(|one| extension == *one))
    };
    let files = files_below(machine.build()).into_iter().filter(|path| is_result(path));
    files.map(|path| read(&machine.build().join(path))).collect()
}

fn read(path: &Path) -> Vec<u8> {
    fs_err::read(path).expect("what was compiled")
}

fn cpu() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// The size of all of it when it is packed, and the seconds of CPU that packing and unpacking take.
fn costs(files: &[Vec<u8>], level: Option<i32>) -> (usize, f64, f64) {
    let (mut packed, start) = (Vec::new(), cpu());
    send(files, level, &mut packed).expect("memory");
    let (middle, mut out) = (cpu(), vec![0; CHUNK]);
    let mut unpacked = unpack(&packed[..], level);
    while unpacked.read(&mut out).expect("what was packed") > 0 {}
    (packed.len(), middle - start, cpu() - middle)
}

/// Sends the files one after the other, as a server reads them: a piece at a time.
fn send(files: &[Vec<u8>], level: Option<i32>, mut to: impl Write) -> io::Result<()> {
    for file in files {
        match level {
            None => file.chunks(CHUNK).try_for_each(|piece| to.write_all(piece))?,
            Some(level) => {
                let mut encoder = Encoder::new(&mut to, level)?;
                encoder.set_pledged_src_size(Some(file.len() as u64))?;
                file.chunks(CHUNK).try_for_each(|piece| encoder.write_all(piece))?;
                encoder.finish()?;
            }
        }
    }
    Ok(())
}

fn unpack<'a>(packed: impl Read + 'a, level: Option<i32>) -> Box<dyn Read + 'a> {
    match level {
        None => Box::new(packed),
        Some(_) => Box::new(Decoder::new(packed).expect("memory")),
    }
}

/// Someone who sends the files to whoever asks.
struct Sender;

impl Sender {
    fn start(files: Vec<Vec<u8>>, level: Option<i32>) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("the port");
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                if stream.set_nodelay(true).and_then(|()| stream.read_exact(&mut [0])).is_ok() {
                    let _ = send(&files, level, &stream);
                }
            }
        });
        address
    }
}

/// The time from the question to the last byte, hashed.
fn fetch(from: SocketAddr, level: Option<i32>, size: usize) -> Duration {
    let mut stream = TcpStream::connect(from).expect("the sender");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let start = Instant::now();
    stream.write_all(b"?").expect("the sender");
    let (mut hashing, mut buffer) = (Hashing::new(io::sink()), vec![0; CHUNK]);
    let mut coming = unpack(&stream, level);
    loop {
        match coming.read(&mut buffer).expect("what was sent") {
            0 => break,
            count => hashing.write_all(&buffer[..count]).expect("a sink"),
        }
    }
    let (_, _, came) = hashing.finish();
    assert_eq!(came, size as u64);
    start.elapsed()
}
